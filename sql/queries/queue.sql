-- name: accept
-- Accepts a batch and its rejected events.
SELECT batch_id, received_at FROM queue.accept(
    %s::queue.lane, %s, %s, %s, %s, %s, %s, %s, %s::text, %s::bytea, %s, %s, %s, %s, %s)

-- name: claim
-- Claims work of one lane: locks it and returns it with its batches. Work that has waited for `waited_s` or less is
-- left to later claims.
WITH entered AS MATERIALIZED (SELECT pg_advisory_xact_lock_shared(analytics.key_lock())),
picked AS MATERIALIZED (
    SELECT lane, work_id, batch_id, received_at, first_event, end_event, deaths
    FROM queue.work
    WHERE lane = %(lane)s::queue.lane AND work_id >= %(low_water)s AND deaths = 0
      -- A received_at ahead of the clock dates from before the clock was stepped back. That work has waited.
      AND NOT received_at BETWEEN clock_timestamp() - make_interval(secs => %(waited_s)s) AND clock_timestamp()
    ORDER BY work_id
    LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
), taken AS MATERIALIZED (
    -- The first work, and more of it until the limits of events and bytes are reached. Sizes are known only after the
    -- rows are locked. Bytes are those of the events, plus for each event the longest envelope of its batch.
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
SELECT p.work_id, p.first_event, p.end_event, p.deaths, b.*
FROM entered
CROSS JOIN taken AS p
-- One index probe of one partition for each work, under any settings of the planner.
CROSS JOIN LATERAL (
    SELECT * FROM queue.encoded_batches AS own
    WHERE own.batch_id = p.batch_id AND own.received_at = p.received_at OFFSET 0
) AS b
ORDER BY p.work_id

-- name: claim_suspect
-- Claims one suspect.
WITH entered AS MATERIALIZED (SELECT pg_advisory_xact_lock_shared(analytics.key_lock())),
picked AS MATERIALIZED (
    SELECT lane, work_id, batch_id, received_at, first_event, end_event, deaths
    FROM queue.work
    WHERE deaths > 0
    ORDER BY work_id
    LIMIT 1
    FOR UPDATE SKIP LOCKED
)
SELECT p.work_id, p.first_event, p.end_event, p.deaths, b.*
FROM entered
CROSS JOIN picked AS p
-- One index probe of one partition for each work, under any settings of the planner.
CROSS JOIN LATERAL (
    SELECT * FROM queue.encoded_batches AS own
    WHERE own.batch_id = p.batch_id AND own.received_at = p.received_at OFFSET 0
) AS b

-- name: claim_hour
-- Claims work of one hour, for a drain.
WITH entered AS MATERIALIZED (SELECT pg_advisory_xact_lock_shared(analytics.key_lock())),
picked AS MATERIALIZED (
    SELECT lane, work_id, batch_id, received_at, first_event, end_event, deaths
    FROM queue.work
    WHERE received_at >= %(hour)s AND received_at < %(hour)s + interval '1 hour' AND deaths = 0
    ORDER BY lane, work_id
    LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
), taken AS MATERIALIZED (
    -- As many as the limit of bytes allows (see claim).
    SELECT * FROM (
        SELECT p.*, size.bytes, sum(size.bytes) OVER (ORDER BY p.lane, p.work_id) AS all_bytes
        FROM picked AS p
        CROSS JOIN LATERAL (
            SELECT (SELECT sum(length) FROM unnest(b.lengths[p.first_event + 1 : p.end_event]) AS length)
                   + (p.end_event - p.first_event) * coalesce(
                       (SELECT max(octet_length(envelope)) FROM unnest(b.envelopes) AS envelope), 0) AS bytes
            FROM queue.batches AS b WHERE b.batch_id = p.batch_id AND b.received_at = p.received_at OFFSET 0
        ) AS size
    ) AS sized
    WHERE all_bytes - bytes < %(bytes_max)s
)
SELECT p.work_id, p.first_event, p.end_event, p.deaths, b.*
FROM entered
CROSS JOIN taken AS p
-- One index probe of one partition for each work, under any settings of the planner.
CROSS JOIN LATERAL (
    SELECT * FROM queue.encoded_batches AS own
    WHERE own.batch_id = p.batch_id AND own.received_at = p.received_at OFFSET 0
) AS b
ORDER BY p.lane, p.work_id

-- name: hour_work
-- The number of unfinished work rows of one hour.
SELECT count(*) FROM queue.work WHERE received_at >= %(hour)s AND received_at < %(hour)s + interval '1 hour'

-- name: complete
-- Deletes finished work.
DELETE FROM queue.work WHERE lane = %s::queue.lane AND work_id = ANY(%s)

-- name: split
-- Splits work into parts of `events` events.
WITH gone AS (DELETE FROM queue.work WHERE lane = %(lane)s::queue.lane AND work_id = %(work_id)s RETURNING *)
INSERT INTO queue.work (lane, batch_id, received_at, first_event, end_event, deaths)
SELECT lane, batch_id, received_at, part, least(part + %(events)s, end_event), deaths
FROM gone, generate_series(gone.first_event, gone.end_event - 1, %(events)s) AS part

-- name: low_water
-- The low-water mark of a lane.
SELECT least((SELECT min(work_id) FROM queue.work WHERE lane = %(lane)s::queue.lane AND work_id >= %(low_water)s),
             %(horizon)s)

-- name: horizon
-- The highest id drawn, and the transactions that write the table (see FinalIds).
SELECT CASE WHEN is_called THEN last_value ELSE 0 END, ARRAY(SELECT queue.writers_of('queue.work'))
FROM queue.work_work_id_seq

-- name: reap
-- Counts the death of a worker for the work that it held.
UPDATE queue.work SET deaths = deaths + 1 WHERE work_id = ANY(%s) RETURNING batch_id

-- name: unsealed_hours
-- Past hours that are not sealed.
SELECT hour FROM queue.hours
WHERE sealed_at IS NULL AND dropped_at IS NULL AND hour + interval '1 hour' <= clock_timestamp()
ORDER BY hour

-- name: seal_hour
-- Seals an hour.
SELECT queue.seal_hour(%s)

-- name: hours_past_retention
-- Sealed hours past their retention.
SELECT hour FROM queue.hours
WHERE dropped_at IS NULL AND sealed_at + %s::interval < clock_timestamp()
ORDER BY hour

-- name: drop_hour
-- Drops an hour.
SELECT queue.drop_hour(%s, %s::interval)

-- name: drop_archived_hour
-- Drops an hour if it is archived.
SELECT queue.drop_archived_hour(%s, %s::interval)

-- name: open_ahead
-- Opens the current hour and the next three.
SELECT queue.open_hour(hour)
FROM generate_series(date_trunc('hour', clock_timestamp(), 'UTC'),
                     date_trunc('hour', clock_timestamp(), 'UTC') + interval '3 hours', interval '1 hour') AS hour
WHERE NOT EXISTS (SELECT FROM queue.hours AS known WHERE known.hour = hour.hour)

-- name: rotate_keys
-- Opens a new generation of identity keys if it is time, and drops the oldest if nothing needs it. The clock correction
-- of the oldest generation applies to all that this call drops.
SELECT analytics.rotate_keys(%s::interval, %s::interval + queue.unwatched_since(
    (SELECT min(closed_at) FROM analytics.key_generations)))

-- name: note_clock
-- Records a keeper's look at the clock.
SELECT queue.note_clock(%s::double precision)

-- name: note_chore
-- Records the result of a chore.
INSERT INTO queue.chores AS c (name, late_after, done_at, failing_since, last_error)
VALUES (%(name)s, %(late_after)s, CASE WHEN %(error)s::text IS NULL THEN clock_timestamp() END,
        CASE WHEN %(error)s::text IS NOT NULL THEN clock_timestamp() END, %(error)s)
ON CONFLICT (name) DO UPDATE SET
    late_after = excluded.late_after, done_at = coalesce(excluded.done_at, c.done_at), last_error = excluded.last_error,
    failing_since = CASE WHEN excluded.last_error IS NOT NULL THEN coalesce(c.failing_since, excluded.failing_since) END

-- name: worker_died
-- Records the death of a worker process.
INSERT INTO queue.worker_deaths (slot, status) VALUES (%s, %s)

-- name: prune_worker_deaths
-- Deletes deaths of workers older than a day.
DELETE FROM queue.worker_deaths WHERE died_at + interval '1 day' < clock_timestamp()

-- name: fold
-- Folds deltas into the account's counters.
SELECT account.fold(%s)

-- name: prune_replays
-- Prunes old replays, a portion of their rows.
SELECT replay.prune(%s::interval + queue.unwatched_since('-infinity'), %s)

-- name: prune_dead_letters
-- Deletes dead letters that were delivered or found to be duplicates, once their hour is dropped. Unresolved and
-- discarded ones are kept, because each stands for an event.
DELETE FROM queue.dead_letters WHERE ctid = ANY(ARRAY(
    SELECT d.ctid FROM queue.dead_letters AS d
    JOIN queue.hours AS h ON h.hour = date_trunc('hour', d.batch_received_at, 'UTC')
    WHERE d.state IN ('delivered', 'duplicate') AND d.resolved_at + %s::interval < clock_timestamp()
      AND h.dropped_at IS NOT NULL
    LIMIT %s))
