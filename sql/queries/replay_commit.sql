-- name: by_index
-- Makes the planner use indexes. A chunk is small beside the tables, so each of its rows is looked up by key.
SELECT set_config('enable_nestloop', 'on', true), set_config('enable_hashjoin', 'off', true),
       set_config('enable_mergejoin', 'off', true), set_config('plan_cache_mode', 'force_custom_plan', true)

-- name: hold_letters
-- Locks the dead letters of these events, so that other changes to them come before or after the whole commit.
SELECT d.dead_letter_id
FROM replay.scratch AS s JOIN queue.dead_letters AS d USING (tenant_id, event_id)
WHERE s.replay_id = %(replay_id)s AND s.chunk = %(chunk)s AND s.action = 'added' AND s.committed_as IS NULL
ORDER BY d.tenant_id, d.dead_letter_id
FOR UPDATE OF d

-- name: keep_accepted
-- Skips rows to be removed whose event was accepted elsewhere. That occurrence counts as a duplicate of the row, so the
-- row stays.
WITH keyed AS MATERIALIZED (
    SELECT s.tenant_id, s.event_id FROM replay.scratch AS s
    WHERE s.replay_id = %(replay_id)s AND s.chunk = %(chunk)s AND s.action = 'removed' AND s.committed_as IS NULL
      AND EXISTS (SELECT FROM analytics.keys AS k
                  WHERE k.tenant_id = s.tenant_id AND k.event_id = s.event_id AND k.received_at = s.received_at)
), accepted AS MATERIALIZED (
    SELECT o.tenant_id, o.event_id
    FROM queue.batches AS b CROSS JOIN LATERAL unnest(b.tenant_ids, b.event_ids) AS o(tenant_id, event_id)
    WHERE EXISTS (SELECT FROM keyed) AND b.event_ids && ARRAY(SELECT event_id FROM keyed)
)
UPDATE replay.scratch AS s SET committed_as = 'skipped'
FROM keyed AS k
WHERE s.replay_id = %(replay_id)s AND s.tenant_id = k.tenant_id AND s.event_id = k.event_id
  AND EXISTS (SELECT FROM accepted AS a WHERE a.tenant_id = k.tenant_id AND a.event_id = k.event_id)

-- name: take_out
-- Deletes the rows to be changed or removed, if they still are what the diff saw. Stores their
-- before-images.
WITH todo AS MATERIALIZED (
    SELECT * FROM replay.scratch
    WHERE replay_id = %(replay_id)s AND chunk = %(chunk)s AND action IN ('changed', 'removed')
      AND is_shadow = {is_shadow} AND committed_as IS NULL
), gone AS (
    DELETE FROM {schema}.events AS e USING todo AS t
    WHERE e.tenant_id = t.tenant_id AND e.received_at = t.received_at AND e.event_id = t.event_id
      AND (%(takes_newer)s OR md5(e::text)::uuid = t.before_hash)
    RETURNING e.tenant_id, e.event_id, to_jsonb(e) AS row
), keyless AS (
    DELETE FROM analytics.keys AS k USING todo AS t, gone AS g
    WHERE t.action = 'removed' AND g.tenant_id = t.tenant_id AND g.event_id = t.event_id
      AND k.tenant_id = t.tenant_id AND k.event_id = t.event_id AND k.received_at = t.received_at
    RETURNING k.tenant_id, k.event_id
), images AS (
    INSERT INTO replay.before_images (replay_id, chunk, tenant_id, event_id, received_at, action, is_shadow, had_key, row)
    SELECT t.replay_id, t.chunk, t.tenant_id, t.event_id, t.received_at, t.action, t.is_shadow,
           t.action = 'changed' OR k.event_id IS NOT NULL, g.row
    FROM todo AS t JOIN gone AS g USING (tenant_id, event_id)
    -- An identity may have identity keys in several generations.
    LEFT JOIN (SELECT DISTINCT tenant_id, event_id FROM keyless) AS k USING (tenant_id, event_id)
)
UPDATE replay.scratch AS s
SET committed_as = CASE WHEN EXISTS (SELECT FROM gone AS g WHERE g.tenant_id = s.tenant_id AND g.event_id = s.event_id)
                        THEN s.action::text ELSE 'skipped' END
WHERE s.replay_id = %(replay_id)s AND s.chunk = %(chunk)s AND s.action IN ('changed', 'removed') AND s.is_shadow = {is_shadow}
  AND s.committed_as IS NULL

-- name: put_changed
-- Inserts the changed rows, without the digest, which belongs to the earlier row.
INSERT INTO {schema}.events
SELECT r.*
FROM replay.scratch AS s
CROSS JOIN LATERAL jsonb_populate_record(NULL::{schema}.events,
                                         s.row - 'digest' || jsonb_build_object('replay_id', s.replay_id)) AS r
WHERE s.replay_id = %(replay_id)s AND s.chunk = %(chunk)s AND s.committed_as = 'changed' AND s.is_shadow = {is_shadow}

-- name: put_added
-- Inserts events that production lacks, under their identity. A dead letter of such an event becomes delivered. Events
-- that were discarded, found to be duplicates or erased since the diff are not inserted.
WITH open_generation AS MATERIALIZED (SELECT max(generation) AS generation FROM analytics.key_generations),
todo AS MATERIALIZED (
    SELECT s.*, s.row ->> 'batch_id' AS batch FROM replay.scratch AS s
    WHERE s.replay_id = %(replay_id)s AND s.chunk = %(chunk)s AND s.action = 'added' AND s.is_shadow = {is_shadow}
      AND s.committed_as IS NULL
      AND NOT EXISTS (SELECT FROM queue.dead_letters AS d
                      WHERE d.tenant_id = s.tenant_id AND d.event_id = s.event_id
                        AND d.batch_id = (s.row ->> 'batch_id')::bigint AND d.state IN ('discarded', 'duplicate'))
      AND NOT replay.is_erased(s.tenant_id, s.event_id, s.received_at, s.row)
      -- A retry may have delivered it to one table since, and a recovery may have moved it to the other.
      AND NOT EXISTS (SELECT FROM account.delivered AS e
                      WHERE e.tenant_id = s.tenant_id AND e.received_at = s.received_at AND e.event_id = s.event_id)
      -- Everything that was delivered since the diff must still have its identity key.
      AND (SELECT min(opened_at) FROM analytics.key_generations)
          <= (SELECT diffed_at FROM replay.chunks WHERE replay_id = %(replay_id)s AND chunk = %(chunk)s)
), fresh AS (
    INSERT INTO analytics.keys (generation, tenant_id, event_id, received_at)
    SELECT g.generation, t.tenant_id, t.event_id, t.received_at
    FROM todo AS t CROSS JOIN open_generation AS g
    WHERE NOT EXISTS (SELECT FROM analytics.keys AS old WHERE old.tenant_id = t.tenant_id AND old.event_id = t.event_id)
    ORDER BY t.tenant_id, t.event_id
    ON CONFLICT DO NOTHING
    RETURNING tenant_id, event_id
), keyed AS MATERIALIZED (
    SELECT t.*, f.event_id IS NOT NULL AS is_fresh FROM todo AS t LEFT JOIN fresh AS f USING (tenant_id, event_id)
    -- An identity key without a row belongs to the event itself.
    WHERE f.event_id IS NOT NULL
       OR EXISTS (SELECT FROM analytics.keys AS k WHERE k.tenant_id = t.tenant_id AND k.event_id = t.event_id
                  AND k.received_at = t.received_at)
), put AS (
    INSERT INTO {schema}.events
    SELECT r.*
    FROM keyed AS t
    CROSS JOIN LATERAL jsonb_populate_record(
        NULL::{schema}.events,
        t.row || jsonb_build_object('replay_id', t.replay_id, 'delivered_at', clock_timestamp())) AS r
    ON CONFLICT DO NOTHING
    RETURNING tenant_id, event_id
), letter AS (
    -- One dead letter, because there is one row. If an event is in its batch twice, the other dead letter does not
    -- change.
    SELECT d.tenant_id, min(d.dead_letter_id) AS dead_letter_id
    FROM put AS p JOIN todo AS t USING (tenant_id, event_id)
    JOIN queue.dead_letters AS d
      ON d.tenant_id = p.tenant_id AND d.event_id = p.event_id AND d.batch_id = t.batch::bigint
    WHERE d.state IN ('waiting', 'exhausted')
    GROUP BY d.tenant_id, d.event_id
), letters AS (
    UPDATE queue.dead_letters AS d SET state = 'delivered', next_attempt_at = NULL, resolved_at = now(),
           reason = 'replay ' || %(replay_id)s
    FROM letter AS l
    WHERE d.tenant_id = l.tenant_id AND d.dead_letter_id = l.dead_letter_id
    RETURNING d.tenant_id, d.event_id, d.dead_letter_id, d.batch_received_at, d.lane, d.failed_in
), counted AS (
    INSERT INTO account.deltas (tenant_id, hour, lane, dead_lettered, delivered, enriched)
    SELECT tenant_id, date_trunc('hour', batch_received_at, 'UTC'), lane, -count(*), count(*),
           count(*) FILTER (WHERE failed_in <> 'load')
    FROM letters GROUP BY 1, 2, 3
), images AS (
    INSERT INTO replay.before_images (replay_id, chunk, tenant_id, event_id, received_at, action, is_shadow, had_key,
                                      dead_letter_id)
    SELECT t.replay_id, t.chunk, t.tenant_id, t.event_id, t.received_at, t.action, t.is_shadow, NOT t.is_fresh,
           l.dead_letter_id
    FROM keyed AS t JOIN put AS p USING (tenant_id, event_id) LEFT JOIN letters AS l USING (tenant_id, event_id)
)
UPDATE replay.scratch AS s
SET committed_as = CASE WHEN EXISTS (SELECT FROM put AS p WHERE p.tenant_id = s.tenant_id AND p.event_id = s.event_id)
                        THEN 'added' ELSE 'skipped' END
WHERE s.replay_id = %(replay_id)s AND s.chunk = %(chunk)s AND s.action = 'added' AND s.is_shadow = {is_shadow}
  AND s.committed_as IS NULL

-- name: keep_traits
-- Stores the traits of the current rows. For the same event the corrected value replaces the earlier one.
WITH subject AS (
    SELECT e.tenant_id, e.event_id, CASE e.type WHEN 'group' THEN 'group' ELSE 'user' END AS kind,
           CASE e.type WHEN 'group' THEN e.group_id ELSE e.user_id END AS subject_id,
           least(e.occurred_at, e.received_at) AS as_of, e.traits
    FROM replay.before_images AS i
    JOIN account.delivered AS e
      ON e.tenant_id = i.tenant_id AND e.received_at = i.received_at AND e.event_id = i.event_id
    WHERE i.replay_id = %(replay_id)s AND i.chunk = %(chunk)s AND e.type IN ('identify', 'group')
      AND jsonb_typeof(e.traits) = 'object'
)
INSERT INTO control.traits AS t (tenant_id, kind, subject_id, name, value, as_of, event_id)
SELECT DISTINCT ON (s.tenant_id, s.kind, s.subject_id, v.key) s.tenant_id, s.kind, s.subject_id, v.key, v.value, s.as_of,
       s.event_id
FROM subject AS s CROSS JOIN LATERAL jsonb_each(s.traits) AS v
-- A longer name does not fit into the index. It stays in the event's own row.
WHERE s.subject_id <> '' AND octet_length(s.subject_id) + octet_length(v.key) <= 2600
ORDER BY s.tenant_id, s.kind, s.subject_id, v.key, s.as_of DESC, s.event_id DESC
ON CONFLICT (tenant_id, kind, subject_id, name) DO UPDATE
SET value = excluded.value, as_of = excluded.as_of, event_id = excluded.event_id
WHERE (t.as_of, t.event_id) <= (excluded.as_of, excluded.event_id)

-- name: count_chunk
-- Counts the chunk in the funnel: a replayed event is one more occurrence of what was accepted before.
INSERT INTO account.deltas (tenant_id, hour, lane, received, accepted, claimed, enriched, duplicate)
SELECT tenant_id, hour, 'replay'::queue.lane, n, n, n, n, n
FROM replay.counts CROSS JOIN LATERAL (SELECT events - failed - discarded AS n) AS replayed
WHERE replay_id = %(replay_id)s AND chunk = %(chunk)s AND n > 0

-- name: mark_rollups
-- Marks the hours that the chunk's commit or undo changed.
INSERT INTO analytics.rollup_marks (tenant_id, received_hour)
SELECT DISTINCT tenant_id, date_trunc('hour', received_at, 'UTC')
FROM replay.before_images WHERE replay_id = %(replay_id)s AND chunk = %(chunk)s

-- name: note_seen
-- Records the first batch that may hold a duplicate of a row that this chunk added: batches that still have work, and
-- batches accepted within the last hour or so, in case their transaction is still open.
UPDATE replay.chunks SET seen_batches = least(
    (SELECT min(batch_id) FROM queue.work),
    (SELECT min(batch_id) FROM queue.batches
     WHERE received_at >= date_trunc('hour', clock_timestamp() - interval '1 hour', 'UTC')),
    (SELECT last_value FROM queue.batch_ids))
WHERE replay_id = %(replay_id)s AND chunk = %(chunk)s
  AND EXISTS (SELECT FROM replay.before_images AS i
              WHERE i.replay_id = %(replay_id)s AND i.chunk = %(chunk)s AND i.action = 'added' AND NOT i.had_key)

-- name: undo_keep_newer
-- Keeps what happened to an event since the commit. An added row stays if the event was sent again and counted as its
-- duplicate, or if the dead letter that it came from is gone. A removed row comes back only if its identity is free.
-- Rows of erased people do not come back.
WITH todo AS MATERIALIZED (
    SELECT i.*, c.seen_batches, c.committed_at, (s.row ->> 'batch_id')::bigint AS batch_id
    FROM replay.before_images AS i
    JOIN replay.chunks AS c USING (replay_id, chunk)
    LEFT JOIN replay.scratch AS s
      ON s.replay_id = i.replay_id AND s.tenant_id = i.tenant_id AND s.event_id = i.event_id
    WHERE i.replay_id = %(replay_id)s AND i.chunk = %(chunk)s AND NOT i.is_restored
), added AS MATERIALIZED (
    SELECT * FROM todo WHERE action = 'added' AND NOT had_key
), sent_again AS MATERIALIZED (
    SELECT b.batch_id, o.tenant_id, o.event_id
    FROM queue.batches AS b
    CROSS JOIN LATERAL unnest(b.tenant_ids, b.event_ids) WITH ORDINALITY AS o(tenant_id, event_id, place)
    WHERE EXISTS (SELECT FROM added) AND b.batch_id >= (SELECT min(coalesce(seen_batches, 0)) FROM added)
      AND b.event_ids && ARRAY(SELECT event_id FROM added) AND o.event_id = ANY(ARRAY(SELECT event_id FROM added))
      -- A dead letter is not a duplicate.
      AND NOT EXISTS (SELECT FROM queue.dead_letters AS d
                      WHERE d.batch_id = b.batch_id AND d.event_index = o.place - 1
                        AND d.state IN ('waiting', 'exhausted', 'discarded'))
), delivered_again AS MATERIALIZED (
    -- If some identity keys since the commit are gone, production itself is searched.
    SELECT e.tenant_id, e.event_id FROM account.delivered AS e
    WHERE (SELECT min(opened_at) FROM analytics.key_generations)
          > (SELECT min(committed_at) FROM todo WHERE action = 'removed')
      AND e.tenant_id = ANY(ARRAY(SELECT tenant_id FROM todo WHERE action = 'removed'))
      AND e.event_id = ANY(ARRAY(SELECT event_id FROM todo WHERE action = 'removed'))
), newer AS (
    SELECT t.tenant_id, t.event_id FROM added AS t
    WHERE EXISTS (SELECT FROM sent_again AS a WHERE a.tenant_id = t.tenant_id AND a.event_id = t.event_id
                                                AND a.batch_id IS DISTINCT FROM t.batch_id)
       -- A batch that was processed after the commit is gone, so nobody knows what was sent again.
       OR EXISTS (SELECT FROM queue.hours AS h WHERE h.dropped_at >= t.committed_at AND h.last_batch >= t.seen_batches)
       OR EXISTS (SELECT FROM queue.dead_letters AS d
                  WHERE d.tenant_id = t.tenant_id AND d.event_id = t.event_id AND d.state = 'duplicate')
    UNION
    SELECT t.tenant_id, t.event_id FROM todo AS t
    WHERE t.dead_letter_id IS NOT NULL
      AND NOT EXISTS (SELECT FROM queue.dead_letters AS d
                      WHERE d.tenant_id = t.tenant_id AND d.dead_letter_id = t.dead_letter_id AND d.state = 'delivered'
                        AND d.payload <> '')
    UNION
    SELECT t.tenant_id, t.event_id FROM todo AS t
    WHERE t.action = 'removed'
      AND (EXISTS (SELECT FROM analytics.keys AS k WHERE k.tenant_id = t.tenant_id AND k.event_id = t.event_id)
           OR EXISTS (SELECT FROM delivered_again AS a WHERE a.tenant_id = t.tenant_id AND a.event_id = t.event_id))
    UNION
    SELECT t.tenant_id, t.event_id FROM todo AS t
    WHERE t.row IS NOT NULL AND replay.is_erased(t.tenant_id, t.event_id, t.received_at, t.row)
)
UPDATE replay.before_images AS i SET kept_newer = true
FROM newer AS n
WHERE i.replay_id = %(replay_id)s AND i.tenant_id = n.tenant_id AND i.event_id = n.event_id

-- name: undo_take_out
-- Deletes what the commit wrote, except rows that a later replay wrote over.
WITH todo AS MATERIALIZED (
    SELECT * FROM replay.before_images
    WHERE replay_id = %(replay_id)s AND chunk = %(chunk)s AND is_shadow = {is_shadow} AND NOT is_restored AND NOT kept_newer
), gone AS (
    DELETE FROM {schema}.events AS e USING todo AS t
    WHERE t.action <> 'removed' AND e.tenant_id = t.tenant_id AND e.received_at = t.received_at
      AND e.event_id = t.event_id AND e.replay_id = t.replay_id
    RETURNING e.tenant_id, e.event_id
), keyless AS (
    DELETE FROM analytics.keys AS k USING todo AS t, gone AS g
    WHERE t.action = 'added' AND NOT t.had_key AND g.tenant_id = t.tenant_id AND g.event_id = t.event_id
      AND k.tenant_id = t.tenant_id AND k.event_id = t.event_id AND k.received_at = t.received_at
), letters AS (
    UPDATE queue.dead_letters AS d SET state = 'exhausted', resolved_at = NULL
    FROM todo AS t JOIN gone AS g USING (tenant_id, event_id)
    WHERE d.tenant_id = t.tenant_id AND d.dead_letter_id = t.dead_letter_id AND d.state = 'delivered'
    RETURNING d.tenant_id, d.batch_received_at, d.lane, d.failed_in
), counted AS (
    INSERT INTO account.deltas (tenant_id, hour, lane, dead_lettered, delivered, enriched)
    SELECT tenant_id, date_trunc('hour', batch_received_at, 'UTC'), lane, count(*), -count(*),
           -count(*) FILTER (WHERE failed_in <> 'load')
    FROM letters GROUP BY 1, 2, 3
)
UPDATE replay.before_images AS i SET is_restored = true
WHERE i.replay_id = %(replay_id)s AND i.chunk = %(chunk)s AND i.is_shadow = {is_shadow} AND NOT i.kept_newer
  AND (i.action = 'removed'
       OR EXISTS (SELECT FROM gone AS g WHERE g.tenant_id = i.tenant_id AND g.event_id = i.event_id))

-- name: undo_put_back
-- Inserts the before-images. The identity of a removed row is free (undo_keep_newer), and no transaction can take it
-- meanwhile (enter_alone).
WITH open_generation AS MATERIALIZED (SELECT max(generation) AS generation FROM analytics.key_generations),
todo AS MATERIALIZED (
    SELECT * FROM replay.before_images
    WHERE replay_id = %(replay_id)s AND chunk = %(chunk)s AND is_shadow = {is_shadow} AND is_restored AND row IS NOT NULL
), keyed AS (
    INSERT INTO analytics.keys (generation, tenant_id, event_id, received_at)
    SELECT g.generation, t.tenant_id, t.event_id, t.received_at
    FROM todo AS t CROSS JOIN open_generation AS g
    WHERE t.action = 'removed'
)
INSERT INTO {schema}.events
SELECT r.* FROM todo AS t CROSS JOIN LATERAL jsonb_populate_record(NULL::{schema}.events, t.row) AS r
