-- name: accept
SELECT batch_id, received_at FROM queue.accept(
    %s::queue.lane, %s, %s, %s, %s, %s, %s, %s, %s::text, %s::bytea, %s, %s, %s, %s, %s)

-- name: claim
WITH entered AS MATERIALIZED (SELECT pg_advisory_xact_lock_shared(analytics.key_lock())),
picked AS MATERIALIZED (
    SELECT lane, work_id, batch_id, received_at, first_event, end_event, attempts
    FROM queue.work
    WHERE lane = %(lane)s::queue.lane AND work_id >= %(low_water)s AND attempts = 0
      -- What lies ahead of the clock was accepted before the clock was stepped back: it has waited.
      AND NOT received_at BETWEEN clock_timestamp() - make_interval(secs => %(waited_s)s) AND clock_timestamp()
    ORDER BY work_id
    LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
), taken AS MATERIALIZED (
    -- The first, and more while there are fewer events and bytes than asked for: nobody knows sizes before the rows are
    -- locked. Bytes are those of the events, with what the request said around them for each (at most the longest).
    SELECT * FROM (
        SELECT p.*, sum(p.end_event - p.first_event) OVER (ORDER BY p.work_id) AS events, size.bytes,
               sum(size.bytes) OVER (ORDER BY p.work_id) AS all_bytes
        FROM picked AS p
        CROSS JOIN LATERAL (
            SELECT (SELECT sum(length) FROM unnest(b.lengths[p.first_event + 1 : p.end_event]) AS length)
                   + (p.end_event - p.first_event) * coalesce(
                       (SELECT max(octet_length(envelope)) FROM unnest(b.envelopes) AS envelope), 0) AS bytes
            FROM queue.batches AS b WHERE b.batch_id = p.batch_id AND b.received_at = p.received_at OFFSET 0
        ) AS size
    ) AS sized
    WHERE events - (end_event - first_event) < %(events_max)s AND all_bytes - bytes < %(bytes_max)s
)
SELECT p.lane::text, p.work_id, p.batch_id, p.received_at, p.first_event, p.end_event, p.attempts,
       array_send(b.tenant_ids), array_send(b.event_ids), array_send(b.client_ats), array_send(b.types),
       array_send(b.lengths), array_send(b.received_ats), b.envelope_of, b.envelopes, b.codec, b.payload, b.epoch,
       (SELECT e.is_shadow FROM control.epochs AS e WHERE e.epoch = b.epoch)
FROM entered
CROSS JOIN taken AS p
-- A probe of one partition's index for each, under any settings of the planner.
CROSS JOIN LATERAL (
    SELECT * FROM queue.batches AS own WHERE own.batch_id = p.batch_id AND own.received_at = p.received_at OFFSET 0
) AS b
ORDER BY p.work_id

-- name: claim_suspect
WITH entered AS MATERIALIZED (SELECT pg_advisory_xact_lock_shared(analytics.key_lock())),
picked AS MATERIALIZED (
    SELECT lane, work_id, batch_id, received_at, first_event, end_event, attempts
    FROM queue.work
    WHERE attempts > 0
    ORDER BY work_id
    LIMIT 1
    FOR UPDATE SKIP LOCKED
)
SELECT p.lane::text, p.work_id, p.batch_id, p.received_at, p.first_event, p.end_event, p.attempts,
       array_send(b.tenant_ids), array_send(b.event_ids), array_send(b.client_ats), array_send(b.types),
       array_send(b.lengths), array_send(b.received_ats), b.envelope_of, b.envelopes, b.codec, b.payload, b.epoch,
       (SELECT e.is_shadow FROM control.epochs AS e WHERE e.epoch = b.epoch)
FROM entered
CROSS JOIN picked AS p
-- A probe of one partition's index for each, under any settings of the planner.
CROSS JOIN LATERAL (
    SELECT * FROM queue.batches AS own WHERE own.batch_id = p.batch_id AND own.received_at = p.received_at OFFSET 0
) AS b

-- name: claim_hour
WITH entered AS MATERIALIZED (SELECT pg_advisory_xact_lock_shared(analytics.key_lock())),
picked AS MATERIALIZED (
    SELECT lane, work_id, batch_id, received_at, first_event, end_event, attempts
    FROM queue.work
    WHERE received_at >= %(hour)s AND received_at < %(hour)s + interval '1 hour' AND attempts = 0
    ORDER BY lane, work_id
    LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
)
SELECT p.lane::text, p.work_id, p.batch_id, p.received_at, p.first_event, p.end_event, p.attempts,
       array_send(b.tenant_ids), array_send(b.event_ids), array_send(b.client_ats), array_send(b.types),
       array_send(b.lengths), array_send(b.received_ats), b.envelope_of, b.envelopes, b.codec, b.payload, b.epoch,
       (SELECT e.is_shadow FROM control.epochs AS e WHERE e.epoch = b.epoch)
FROM entered
CROSS JOIN picked AS p
-- A probe of one partition's index for each, under any settings of the planner.
CROSS JOIN LATERAL (
    SELECT * FROM queue.batches AS own WHERE own.batch_id = p.batch_id AND own.received_at = p.received_at OFFSET 0
) AS b
ORDER BY p.lane, p.work_id

-- name: hour_work
SELECT count(*) FROM queue.work WHERE received_at >= %(hour)s AND received_at < %(hour)s + interval '1 hour'

-- name: complete
DELETE FROM queue.work WHERE lane = %s::queue.lane AND work_id = ANY(%s)

-- name: split
WITH gone AS (DELETE FROM queue.work WHERE lane = %(lane)s::queue.lane AND work_id = %(work_id)s RETURNING *)
INSERT INTO queue.work (lane, batch_id, received_at, first_event, end_event, attempts)
SELECT lane, batch_id, received_at, part, least(part + %(events)s, end_event), attempts
FROM gone, generate_series(gone.first_event, gone.end_event - 1, %(events)s) AS part

-- name: low_water
SELECT least((SELECT min(work_id) FROM queue.work WHERE lane = %(lane)s::queue.lane AND work_id >= %(low_water)s),
             %(horizon)s)

-- name: horizon
-- The highest id that was drawn, and the transactions that write the table (see SettledIds).
SELECT CASE WHEN is_called THEN last_value ELSE 0 END, ARRAY(SELECT queue.writers_of('queue.work'))
FROM queue.work_work_id_seq

-- name: reap
UPDATE queue.work SET attempts = attempts + 1 WHERE work_id = ANY(%s) RETURNING batch_id

-- name: unsealed_hours
SELECT hour FROM queue.hours
WHERE sealed_at IS NULL AND dropped_at IS NULL AND hour + interval '1 hour' <= clock_timestamp()
ORDER BY hour

-- name: seal_hour
SELECT queue.seal_hour(%s)

-- name: hours_past_retention
SELECT hour FROM queue.hours
WHERE dropped_at IS NULL AND sealed_at + %s::interval < clock_timestamp()
ORDER BY hour

-- name: drop_hour
SELECT queue.drop_hour(%s, %s::interval)

-- name: drop_archived_hour
SELECT queue.drop_archived_hour(%s, %s::interval)

-- name: open_ahead
SELECT queue.open_hour(hour)
FROM generate_series(date_trunc('hour', clock_timestamp(), 'UTC'),
                     date_trunc('hour', clock_timestamp(), 'UTC') + interval '3 hours', interval '1 hour') AS hour
WHERE NOT EXISTS (SELECT FROM queue.hours AS known WHERE known.hour = hour.hour)

-- name: rotate_keys
-- All that it drops is as much younger than its clock says as the oldest of it.
SELECT analytics.rotate_keys(%s::interval, %s::interval + queue.unwatched_since(
    (SELECT min(closed_at) FROM analytics.key_generations)))

-- name: note_clock
SELECT queue.note_clock(%s::double precision)

-- name: note_chore
INSERT INTO queue.chores AS c (name, late_after, done_at, failing_since, last_error)
VALUES (%(name)s, %(late_after)s, CASE WHEN %(error)s::text IS NULL THEN clock_timestamp() END,
        CASE WHEN %(error)s::text IS NOT NULL THEN clock_timestamp() END, %(error)s)
ON CONFLICT (name) DO UPDATE SET
    late_after = excluded.late_after, done_at = coalesce(excluded.done_at, c.done_at), last_error = excluded.last_error,
    failing_since = CASE WHEN excluded.last_error IS NOT NULL THEN coalesce(c.failing_since, excluded.failing_since) END

-- name: worker_died
INSERT INTO queue.worker_deaths (slot, status) VALUES (%s, %s)

-- name: prune_worker_deaths
DELETE FROM queue.worker_deaths WHERE died_at + interval '1 day' < clock_timestamp()

-- name: fold
SELECT account.fold(%s)

-- name: prune_replays
SELECT replay.prune(%s::interval + queue.unwatched_since('-infinity'))

-- name: prune_dead_letters
-- Those that were written in the end, once their hour is gone. What is unresolved or was discarded is kept: it stands
-- for an event.
DELETE FROM queue.dead_letters AS d
USING queue.hours AS h
WHERE d.state IN ('delivered', 'duplicate') AND d.resolved_at + %s::interval < clock_timestamp() AND h.hour = date_trunc('hour', d.batch_received_at, 'UTC')
  AND h.dropped_at IS NOT NULL
