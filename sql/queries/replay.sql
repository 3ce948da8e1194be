-- name: gaps
-- Hours of the window that were dropped.
SELECT hour FROM queue.hours
WHERE dropped_at IS NOT NULL AND hour + interval '1 hour' > %(start)s AND hour < %(end)s
ORDER BY hour

-- name: oldest_hour
-- The oldest hour that is kept.
SELECT min(hour) FROM queue.hours WHERE dropped_at IS NULL

-- name: in_window
-- Retained events of the window by hour and tenant. The window is over each event's own received_at.
SELECT date_trunc('hour', b.received_at, 'UTC') AS hour, coalesce(t.name, e.tenant_id::text) AS tenant,
       count(*) AS events, sum(e.length)::bigint AS bytes
FROM queue.batches AS b
CROSS JOIN LATERAL unnest(b.tenant_ids, b.types, b.lengths, b.received_ats) AS e(tenant_id, type, length, received_at)
LEFT JOIN control.tenants AS t ON t.tenant_id = e.tenant_id
WHERE b.received_at >= date_trunc('hour', %(start)s::timestamptz, 'UTC') AND b.received_at < %(end)s
  AND coalesce(e.received_at, b.received_at) >= %(start)s AND coalesce(e.received_at, b.received_at) < %(end)s
  AND (%(tenant_ids)s::integer[] IS NULL OR e.tenant_id = ANY(%(tenant_ids)s::integer[]))
  AND (%(codes)s::"char"[] IS NULL OR e.type = ANY(%(codes)s::"char"[]))
GROUP BY 1, 2
ORDER BY 1, 2

-- name: plan
-- Plans a replay.
INSERT INTO replay.replays (window_start, window_end, tenant_ids, types, only_missing, planned_events, actor, reason)
VALUES (%(start)s, %(end)s, %(tenant_ids)s, %(types)s, %(only_missing)s, %(events)s, %(actor)s, %(reason)s)
RETURNING replay_id

-- name: plan_chunks
-- Divides the window into chunks.
WITH chosen AS (
    SELECT b.batch_id, date_trunc('hour', b.received_at, 'UTC') AS hour, b.events
    FROM queue.batches AS b
    WHERE b.received_at >= date_trunc('hour', %(start)s::timestamptz, 'UTC') AND b.received_at < %(end)s
      AND (%(tenant_ids)s::integer[] IS NULL OR b.tenant_ids && %(tenant_ids)s::integer[])
), summed AS (
    SELECT hour, batch_id, events, (sum(events) OVER (PARTITION BY hour ORDER BY batch_id) - events) / %(chunk)s AS part
    FROM chosen
), chunk AS (
    SELECT hour, false AS is_sweep, min(batch_id) AS first_batch, max(batch_id) AS last_batch, sum(events) AS events
    FROM summed GROUP BY hour, floor(part)
    UNION ALL
    SELECT hour, true, 0, 0, 0 FROM queue.hours
    WHERE NOT %(only_missing)s AND dropped_at IS NULL AND hour + interval '1 hour' > %(start)s AND hour < %(end)s
      -- If batches are missing, a row without an accepted event is no proof.
      AND replay.missing_events(hour) = 0
)
INSERT INTO replay.chunks (replay_id, chunk, hour, is_sweep, first_batch, last_batch, events)
SELECT %(replay_id)s, row_number() OVER (ORDER BY hour, is_sweep, first_batch), hour, is_sweep, first_batch, last_batch,
       events
FROM chunk

-- name: unswept
-- Hours whose batches are not all kept. In them no row is reported as removed.
SELECT h.hour FROM replay.replays AS r
JOIN queue.hours AS h ON h.hour + interval '1 hour' > r.window_start AND h.hour < r.window_end
WHERE r.replay_id = %(replay_id)s AND NOT r.only_missing AND h.dropped_at IS NULL AND h.hour <= r.created_at
  AND NOT EXISTS (SELECT FROM replay.chunks AS c
                  WHERE c.replay_id = r.replay_id AND c.hour = h.hour AND c.is_sweep)
ORDER BY h.hour

-- name: rate
-- Events per second of the last measured steps, or NULL before the first.
SELECT sum(planned_events) / nullif(sum(extract(epoch FROM diffed_at - step_began_at)), 0)
FROM (SELECT planned_events, diffed_at, step_began_at FROM replay.replays
      WHERE diffed_at > step_began_at AND planned_events > 1000 ORDER BY replay_id DESC LIMIT 5) AS measured

-- name: one
-- One replay.
SELECT r.*, r.state::text AS state, ARRAY(SELECT t.name FROM control.tenants AS t WHERE t.tenant_id = ANY(r.tenant_ids)
                                          ORDER BY t.name) AS tenants
FROM replay.replays AS r WHERE replay_id = %(replay_id)s

-- name: lock
-- Locks a replay.
SELECT state::text, is_paused, paused_because, pruned_at FROM replay.replays WHERE replay_id = %(replay_id)s FOR UPDATE

-- name: hold_hours
-- Prevents a drop of the hours while this transaction decides that it needs them.
SELECT count(pg_advisory_xact_lock_shared(queue.hour_lock(hour)))
FROM (SELECT DISTINCT hour FROM replay.chunks WHERE replay_id = %(replay_id)s) AS needed

-- name: unreadable_hours
-- Hours of the replay whose batches hold less than was planned.
SELECT hour, planned, kept FROM replay.unreadable_hours(%(replay_id)s, %(all_chunks)s)

-- name: unread_chunks
-- The number of chunks that were not read completely.
SELECT count(*) FROM replay.chunks
WHERE replay_id = %(replay_id)s AND (diffed_at IS NULL OR read_events IS NULL OR read_events < events)

-- name: set_state
-- Begins a step of a replay.
UPDATE replay.replays SET state = %(state)s::replay.state, is_paused = false, paused_because = NULL,
                          step_began_at = clock_timestamp()
WHERE replay_id = %(replay_id)s

-- name: begin_diff
-- Deletes the earlier diff and resets the chunks.
WITH gone AS (DELETE FROM replay.counts WHERE replay_id = %(replay_id)s),
     old AS (DELETE FROM replay.scratch WHERE replay_id = %(replay_id)s),
     fresh AS (UPDATE replay.chunks SET diffed_at = NULL, read_events = NULL, is_done = false, times_taken = 0
               WHERE replay_id = %(replay_id)s)
UPDATE replay.replays SET
    transform_to = %(version)s,
    transform_from = ARRAY(
        SELECT DISTINCT version FROM control.transforms
        WHERE since >= coalesce((SELECT max(since) FROM control.transforms WHERE since <= window_start), window_start)
        ORDER BY version)
WHERE replay_id = %(replay_id)s

-- name: begin_commit
-- Resets the chunks for a commit.
WITH fresh AS (UPDATE replay.chunks SET is_done = false, times_taken = 0 WHERE replay_id = %(replay_id)s)
UPDATE replay.replays SET takes_newer = %(takes_newer)s WHERE replay_id = %(replay_id)s

-- name: begin_undo
-- Resets the chunks for an undo. Chunks that were not committed need no undo.
UPDATE replay.chunks SET times_taken = 0, is_done = committed_at IS NULL,
                         undone_at = CASE WHEN committed_at IS NULL THEN clock_timestamp() END
WHERE replay_id = %(replay_id)s

-- name: forget_takes
-- Resets how often a replay's chunks were taken.
UPDATE replay.chunks SET times_taken = 0 WHERE replay_id = %(replay_id)s

-- name: forget_scratch
-- Deletes the diff of a replay.
DELETE FROM replay.scratch WHERE replay_id = %(replay_id)s

-- name: set_paused
-- Pauses or resumes a replay.
UPDATE replay.replays SET is_paused = %(is_paused)s, paused_because = NULL WHERE replay_id = %(replay_id)s

-- name: list
-- The newest replays.
SELECT replay_id, state::text, is_paused, window_start, window_end, planned_events, reason, actor, created_at, diffed_at,
       committed_at, undone_at
FROM replay.replays
ORDER BY replay_id DESC
LIMIT %(limit)s

-- name: progress
-- The progress of the step under way, or of the last one.
SELECT count(c.chunk) AS chunks, coalesce(sum(c.events), 0)::bigint AS events,
       count(*) FILTER (WHERE c.is_done) AS chunks_done,
       coalesce(sum(c.events) FILTER (WHERE c.is_done), 0)::bigint AS events_done,
       extract(epoch FROM CASE r.state WHEN 'diffed' THEN r.diffed_at WHEN 'committed' THEN r.committed_at
                                       WHEN 'undone' THEN r.undone_at ELSE clock_timestamp() END
                          - r.step_began_at)::double precision AS seconds
FROM replay.replays AS r LEFT JOIN replay.chunks AS c USING (replay_id)
WHERE replay_id = %(replay_id)s
GROUP BY r.replay_id

-- name: totals
-- The totals of a diff.
SELECT coalesce(sum(events), 0)::bigint AS events, coalesce(sum(added), 0)::bigint AS added,
       coalesce(sum(changed), 0)::bigint AS changed, coalesce(sum(removed), 0)::bigint AS removed,
       coalesce(sum(unchanged), 0)::bigint AS unchanged, coalesce(sum(duplicate), 0)::bigint AS duplicate,
       coalesce(sum(discarded), 0)::bigint AS discarded, coalesce(sum(failed), 0)::bigint AS failed
FROM replay.counts WHERE replay_id = %(replay_id)s

-- name: by_tenant
-- The numbers of a diff by tenant.
SELECT coalesce(t.name, c.tenant_id::text) AS tenant, sum(events)::bigint AS events, sum(added)::bigint AS added,
       sum(changed)::bigint AS changed, sum(removed)::bigint AS removed, sum(unchanged)::bigint AS unchanged,
       sum(failed)::bigint AS failed
FROM replay.counts AS c LEFT JOIN control.tenants AS t USING (tenant_id)
WHERE replay_id = %(replay_id)s
GROUP BY 1 ORDER BY sum(added) + sum(changed) + sum(removed) DESC, 1

-- name: by_hour
-- The numbers of a diff by hour.
SELECT hour, sum(events)::bigint AS events, sum(added)::bigint AS added, sum(changed)::bigint AS changed,
       sum(removed)::bigint AS removed, sum(unchanged)::bigint AS unchanged, sum(failed)::bigint AS failed
FROM replay.counts WHERE replay_id = %(replay_id)s GROUP BY 1 ORDER BY 1

-- name: fields
-- The number of changed rows by field.
SELECT field, count(*) AS rows
FROM replay.scratch AS s CROSS JOIN LATERAL unnest(s.fields) AS field
WHERE s.replay_id = %(replay_id)s AND s.action = 'changed'
GROUP BY field ORDER BY rows DESC, field

-- name: samples
-- Samples of the diff. Values of production are those before the change only until the commit, or after its undo.
SELECT s.action::text, coalesce(t.name, s.tenant_id::text) AS tenant, s.row ->> 'message_id' AS message_id, s.event_id,
       s.received_at, s.fields,
       (SELECT jsonb_object_agg(field, to_jsonb(e) #> string_to_array(field, '.', NULL))
        FROM unnest(s.fields) AS field, account.delivered AS e
        WHERE e.tenant_id = s.tenant_id AND e.received_at = s.received_at AND e.event_id = s.event_id) AS now,
       (SELECT jsonb_object_agg(field, s.row #> string_to_array(field, '.')) FROM unnest(s.fields) AS field) AS replayed
FROM (SELECT *, row_number() OVER (PARTITION BY action, fields ORDER BY tenant_id, event_id) AS place
      FROM replay.scratch WHERE replay_id = %(replay_id)s) AS s
LEFT JOIN control.tenants AS t USING (tenant_id)
WHERE s.place <= %(samples)s
ORDER BY s.action, s.fields, s.place
LIMIT 30

-- name: committed
-- What a commit wrote and skipped.
SELECT count(*) FILTER (WHERE committed_as = 'added') AS added, count(*) FILTER (WHERE committed_as = 'changed') AS changed,
       count(*) FILTER (WHERE committed_as = 'removed') AS removed,
       count(*) FILTER (WHERE committed_as = 'skipped') AS skipped
FROM replay.scratch WHERE replay_id = %(replay_id)s

-- name: skipped
-- The rows that a commit skipped.
SELECT coalesce(t.name, s.tenant_id::text) AS tenant, s.row ->> 'message_id' AS message_id, s.event_id, s.action::text,
       s.fields
FROM replay.scratch AS s LEFT JOIN control.tenants AS t USING (tenant_id)
WHERE s.replay_id = %(replay_id)s AND s.committed_as = 'skipped'
ORDER BY 1, 2 LIMIT 50

-- name: restored
-- The results of an undo. kept_newer: since the commit the event was delivered or sent again, or its person was erased.
-- left_alone: a later replay wrote over the row, or the row is gone.
SELECT count(*) FILTER (WHERE is_restored) AS restored, count(*) FILTER (WHERE kept_newer) AS kept_newer,
       count(*) FILTER (WHERE NOT is_restored AND NOT kept_newer) AS left_alone
FROM replay.before_images WHERE replay_id = %(replay_id)s

-- name: set_lane_limit
-- Changes the limits of the replay lane.
INSERT INTO control.lane_limits (lane, share, cap) VALUES ('replay', %(share)s, %(cap)s)
ON CONFLICT (lane) DO UPDATE SET share = excluded.share, cap = excluded.cap

-- name: log
-- Adds an entry to the audit log.
INSERT INTO control.audit_log (actor, action, reason, detail) VALUES (%(actor)s, %(action)s, %(reason)s, %(detail)s)

-- name: resolve_alert
-- Resolves the alert of a paused replay.
UPDATE control.alerts SET resolved_at = clock_timestamp()
WHERE kind = 'replay_paused' AND fingerprint = %(replay_id)s::text AND resolved_at IS NULL

-- name: unfinished
-- An unfinished replay of the same window, to be continued.
SELECT replay_id, state::text FROM replay.replays
WHERE state = ANY(%(states)s::replay.state[]) AND window_start = %(start)s AND window_end = %(end)s
  AND tenant_ids IS NOT DISTINCT FROM %(tenant_ids)s::integer[]
  AND types IS NOT DISTINCT FROM %(types)s::text[] AND only_missing = %(only_missing)s
ORDER BY replay_id DESC LIMIT 1
