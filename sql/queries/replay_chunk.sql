-- name: state_of_lane
-- Whether any replay has a step to do, and the limits of its lane.
SELECT EXISTS (SELECT FROM replay.replays WHERE state IN ('diffing', 'committing', 'undoing') AND NOT is_paused),
       (SELECT share FROM control.lane_limits WHERE lane = 'replay'),
       (SELECT cap FROM control.lane_limits WHERE lane = 'replay')

-- name: note_transform
-- Records a new version of the transform.
INSERT INTO control.transforms (version)
SELECT %(version)s
WHERE %(version)s IS DISTINCT FROM (SELECT version FROM control.transforms ORDER BY since DESC LIMIT 1)
ON CONFLICT DO NOTHING

-- name: take
-- Takes the next chunk and counts that. The count is committed before the work, because a death leaves no other trace.
-- A chunk waits while its batches are being processed. A crash of PostgreSQL may undo a finished chunk, and then it is
-- done again. So its commits need not wait for the disk. The end of the step waits (finish), and with it all commits
-- before.
UPDATE replay.chunks AS c SET times_taken = times_taken + 1, taken_by = pg_backend_pid(), taken_since = me.backend_start
FROM (SELECT backend_start, set_config('synchronous_commit', 'off', true)
      FROM pg_stat_activity WHERE pid = pg_backend_pid()) AS me, replay.replays AS r
WHERE r.replay_id = c.replay_id AND (c.replay_id, c.chunk) = (
    SELECT next.replay_id, next.chunk
    FROM (SELECT replay_id, state FROM replay.replays
          WHERE state IN ('diffing', 'committing', 'undoing') AND NOT is_paused ORDER BY replay_id) AS r
    -- Scans the index of open chunks up to the first free one. OFFSET 0 prevents that the conditions become joins.
    CROSS JOIN LATERAL (
        SELECT c.replay_id, c.chunk FROM replay.chunks AS c
        WHERE c.replay_id = r.replay_id AND NOT c.is_done
          AND (c.taken_by IS NULL OR NOT EXISTS (SELECT FROM pg_stat_activity AS a
                                                 WHERE a.pid = c.taken_by AND a.backend_start = c.taken_since
                                                   AND a.pid <> pg_backend_pid() OFFSET 0))
          AND (c.is_sweep OR r.state <> 'diffing' OR NOT EXISTS (
                  SELECT FROM queue.work AS w
                  WHERE w.received_at >= c.hour AND w.received_at < c.hour + interval '1 hour'
                    AND w.batch_id BETWEEN c.first_batch AND c.last_batch OFFSET 0))
          -- A sweep needs all events of its hour, so the other chunks of the hour come first.
          AND (NOT c.is_sweep OR r.state <> 'diffing' OR (
                  SELECT o.chunk FROM replay.chunks AS o
                  WHERE o.replay_id = c.replay_id AND NOT o.is_done AND o.hour = c.hour AND NOT o.is_sweep
                  ORDER BY o.chunk LIMIT 1) IS NULL)
        ORDER BY c.chunk
        LIMIT 1
        FOR UPDATE SKIP LOCKED) AS next
    LIMIT 1)
RETURNING c.replay_id, c.chunk, c.hour, c.is_sweep, c.first_batch, c.last_batch, c.events, c.times_taken, r.state::text,
          r.window_start, r.window_end, r.tenant_ids, r.types, r.only_missing, r.takes_newer

-- name: give_back
-- Gives a chunk back, as if it had not been taken.
UPDATE replay.chunks SET times_taken = times_taken - 1, taken_by = NULL
WHERE replay_id = %(replay_id)s AND chunk = %(chunk)s AND taken_by = pg_backend_pid()

-- name: pause
-- Pauses a replay and opens its alert.
WITH paused AS (
    UPDATE replay.replays SET is_paused = true, paused_because = %(why)s
    WHERE replay_id = %(replay_id)s AND state = %(state)s::replay.state
    RETURNING replay_id
)
INSERT INTO control.alerts AS a (kind, fingerprint, message)
SELECT 'replay_paused', replay_id::text,
       format('replay %%s is paused: %%s; see: pipeline-platform replay show %%s', replay_id, %(why)s::text, replay_id)
FROM paused
ON CONFLICT (kind, fingerprint, tenant_id) WHERE resolved_at IS NULL
DO UPDATE SET occurrences = a.occurrences + 1, last_seen_at = now(), message = excluded.message

-- name: enter
-- Takes the shared locks of a chunk: an erasure or a rotation of identity keys runs before or after the whole chunk.
SELECT pg_advisory_xact_lock_shared(control.erasure_lock()), pg_advisory_xact_lock_shared(analytics.key_lock()),
       set_config('synchronous_commit', 'off', true)

-- name: enter_alone
-- For a chunk that looks for an identity and then deletes its identity key. The exclusive lock prevents that an event
-- is delivered meanwhile. Claims wait behind a waiter for it, so the wait is short. Fails with LockNotAvailable.
SELECT pg_advisory_xact_lock_shared(control.erasure_lock()), set_config('lock_timeout', '250ms', true),
       pg_advisory_xact_lock(analytics.key_lock()), set_config('lock_timeout', '10s', true),
       set_config('synchronous_commit', 'off', true)

-- name: hold
-- Whether this backend still has to do its chunk. Its replay may have been cancelled or paused.
SELECT r.state::text = %(state)s AND NOT r.is_paused FROM replay.replays AS r JOIN replay.chunks AS c USING (replay_id)
WHERE r.replay_id = %(replay_id)s AND c.chunk = %(chunk)s AND c.taken_by = pg_backend_pid()
FOR SHARE OF r

-- name: chunk_done
-- Records that a chunk is done.
UPDATE replay.chunks SET
    diffed_at = CASE WHEN %(state)s = 'diffing' THEN clock_timestamp() ELSE diffed_at END,
    read_events = CASE WHEN %(state)s = 'diffing' THEN %(read_events)s ELSE read_events END,
    committed_at = CASE WHEN %(state)s = 'committing' THEN clock_timestamp() ELSE committed_at END,
    undone_at = CASE WHEN %(state)s = 'undoing' THEN clock_timestamp() ELSE undone_at END,
    is_done = true, times_taken = 0, taken_by = NULL
WHERE replay_id = %(replay_id)s AND chunk = %(chunk)s

-- name: finish
-- Ends a step after its last chunk. It runs after the chunk's own commit, so of two chunks that end at the same time
-- one sees both.
UPDATE replay.replays AS r SET
    state = CASE r.state WHEN 'diffing' THEN 'diffed'::replay.state WHEN 'committing' THEN 'committed' ELSE 'undone' END,
    diffed_at = CASE WHEN r.state = 'diffing' THEN clock_timestamp() ELSE r.diffed_at END,
    committed_at = CASE WHEN r.state = 'committing' THEN clock_timestamp() ELSE r.committed_at END,
    undone_at = CASE WHEN r.state = 'undoing' THEN clock_timestamp() ELSE r.undone_at END
WHERE r.state IN ('diffing', 'committing', 'undoing') AND CASE
    WHEN (SELECT c.chunk FROM replay.chunks AS c
          WHERE c.replay_id = r.replay_id AND NOT c.is_done ORDER BY c.chunk LIMIT 1) IS NOT NULL THEN false
    -- The same condition as the trigger whole_diff, so that it does not fail a worker.
    WHEN r.state = 'diffing' THEN (SELECT c.chunk FROM replay.chunks AS c
                                   WHERE c.replay_id = r.replay_id AND c.read_events IS NULL
                                   ORDER BY c.chunk LIMIT 1) IS NULL
    ELSE true END
