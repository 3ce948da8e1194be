-- name: state_of_lane
-- Whether any replay has something to do, and what its lane may use.
SELECT EXISTS (SELECT FROM replay.replays WHERE state IN ('diffing', 'committing', 'undoing') AND NOT is_paused),
       (SELECT share FROM control.lane_limits WHERE lane = 'replay'),
       (SELECT cap FROM control.lane_limits WHERE lane = 'replay')

-- name: note_transform
INSERT INTO control.transforms (version)
SELECT %(version)s
WHERE %(version)s IS DISTINCT FROM (SELECT version FROM control.transforms ORDER BY since DESC LIMIT 1)
ON CONFLICT DO NOTHING

-- name: take
-- The next chunk, its attempt committed before the work: of a death there is no other trace. A chunk whose batches are
-- still being processed waits.
UPDATE replay.chunks AS c SET attempts = attempts + 1, taken_by = pg_backend_pid(), taken_since = me.backend_start
FROM (SELECT backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()) AS me, replay.replays AS r
WHERE r.replay_id = c.replay_id AND (c.replay_id, c.chunk) = (
    SELECT c.replay_id, c.chunk
    FROM replay.replays AS r JOIN replay.chunks AS c USING (replay_id)
    WHERE r.state IN ('diffing', 'committing', 'undoing') AND NOT r.is_paused AND NOT c.is_done
      AND (c.taken_by IS NULL OR NOT EXISTS (SELECT FROM pg_stat_activity AS a
                                             WHERE a.pid = c.taken_by AND a.backend_start = c.taken_since
                                               AND a.pid <> pg_backend_pid()))
      AND NOT EXISTS (SELECT FROM queue.work AS w WHERE r.state = 'diffing' AND w.received_at >= c.hour
                      AND w.received_at < c.hour + interval '1 hour'
                      AND NOT c.is_sweep AND w.batch_id BETWEEN c.first_batch AND c.last_batch)
    ORDER BY c.replay_id, c.chunk
    LIMIT 1
    FOR UPDATE OF c SKIP LOCKED)
RETURNING c.replay_id, c.chunk, c.hour, c.is_sweep, c.first_batch, c.last_batch, c.events, c.attempts, r.state::text,
          r.window_start, r.window_end, r.tenant_ids, r.types, r.only_missing, r.takes_newer

-- name: give_back
UPDATE replay.chunks SET attempts = attempts - 1, taken_by = NULL
WHERE replay_id = %(replay_id)s AND chunk = %(chunk)s AND taken_by = pg_backend_pid()

-- name: pause_for_deaths
WITH paused AS (UPDATE replay.replays SET is_paused = true WHERE replay_id = %(replay_id)s RETURNING replay_id)
INSERT INTO control.alerts AS a (kind, fingerprint, message)
SELECT 'replay_paused', replay_id::text,
       format('replay %%s is paused: %%s workers died of its chunk %%s; see: pipeline-platform replay show %%s',
              replay_id, %(attempts)s::integer, %(chunk)s::integer, replay_id)
FROM paused
ON CONFLICT (kind, fingerprint) WHERE resolved_at IS NULL
DO UPDATE SET occurrences = a.occurrences + 1, last_seen_at = now()

-- name: enter
-- An erasure, and a rotation of the keys, come before or after all of a chunk.
SELECT pg_advisory_xact_lock_shared(control.erasure_lock()), pg_advisory_xact_lock_shared(analytics.key_lock())

-- name: by_index
-- A chunk is small beside the tables: each of its rows is looked up by key.
SELECT set_config('enable_nestloop', 'on', true), set_config('enable_hashjoin', 'off', true),
       set_config('enable_mergejoin', 'off', true), set_config('plan_cache_mode', 'force_custom_plan', true)

-- name: hold
-- Whether this backend's chunk is still to be done: its replay may have been cancelled or paused meanwhile.
SELECT r.state::text = %(state)s AND NOT r.is_paused FROM replay.replays AS r JOIN replay.chunks AS c USING (replay_id)
WHERE r.replay_id = %(replay_id)s AND c.chunk = %(chunk)s AND c.taken_by = pg_backend_pid()
FOR SHARE OF r

-- name: batches
SELECT 'replay'::text, 0::bigint, b.batch_id, b.received_at, 0, b.events, 0::smallint,
       array_send(b.tenant_ids), array_send(b.event_ids), array_send(b.client_ats), array_send(b.types),
       array_send(b.lengths), array_send(b.received_ats), b.envelope_of, b.envelopes, b.codec, b.payload, b.epoch,
       (SELECT e.is_shadow FROM control.epochs AS e WHERE e.epoch = b.epoch)
FROM queue.batches AS b
WHERE b.received_at >= %(hour)s AND b.received_at < %(hour)s + interval '1 hour'
  AND b.batch_id BETWEEN %(first_batch)s AND %(last_batch)s
  AND (%(tenant_ids)s::integer[] IS NULL OR b.tenant_ids && %(tenant_ids)s::integer[])
ORDER BY b.batch_id

-- name: erased
SELECT batch_id, event_index FROM control.erased_events
WHERE batch_received_at >= %(hour)s AND batch_received_at < %(hour)s + interval '1 hour'
  AND batch_id BETWEEN %(first_batch)s AND %(last_batch)s AND event_index >= 0

-- name: compare
-- Classifies processed events against what was delivered, keeps those that changed, and answers the places of those
-- that production lacks. What look-ups had added to a row stays: it is as of the event's own time.
WITH input AS MATERIALIZED (
    SELECT *
    FROM unnest(%(place)s::integer[], %(tenant_id)s::integer[], %(event_id)s::uuid[], %(is_first)s::boolean[],
                %(batch_id)s::bigint[], %(event_index)s::integer[], %(is_shadow)s::boolean[], %(message_id)s::text[],
                %(type)s::text[], %(name)s::text[], %(user_id)s::text[], %(anonymous_id)s::text[], %(group_id)s::text[],
                %(previous_id)s::text[], %(occurred_at)s::timestamptz[], %(received_at)s::timestamptz[],
                %(properties)s::jsonb[], %(traits)s::jsonb[], %(context)s::jsonb[])
        AS i(place, tenant_id, event_id, is_first, batch_id, event_index, is_shadow, message_id, type, name, user_id,
             anonymous_id, group_id, previous_id, occurred_at, received_at, properties, traits, context)
), compared AS MATERIALIZED (
    SELECT i.*, old.at_shadow,
           CASE
               WHEN NOT i.is_first THEN 'duplicate'
               WHEN old.event_id IS NOT NULL THEN CASE
                   WHEN old.batch_id <> i.batch_id THEN 'duplicate'
                   -- By image: 1.5 and 1.50 are two values.
                   WHEN %(only_missing)s OR record_image_eq(ROW(i.message_id, i.type, i.name, i.user_id, i.anonymous_id, i.group_id,
                         i.previous_id, i.occurred_at, i.properties, i.traits, i.context),
                       ROW(old.message_id, old.type, old.name, old.user_id, old.anonymous_id, old.group_id,
                         old.previous_id, old.occurred_at, old.properties, old.traits, old.context))
                   THEN 'unchanged' ELSE 'changed' END
               WHEN EXISTS (SELECT FROM queue.dead_letters AS d
                            WHERE d.batch_id = i.batch_id AND d.event_index = i.event_index AND d.state = 'discarded')
                   THEN 'discarded'
               WHEN EXISTS (SELECT FROM analytics.keys AS k
                            WHERE k.tenant_id = i.tenant_id AND k.event_id = i.event_id
                              AND k.received_at <> i.received_at)
                   THEN 'duplicate'
               -- The keys of an hour that was taken back from its archive may be gone: ask the rows.
               WHEN EXISTS (SELECT FROM control.archives WHERE hour = %(hour)s AND restored_at IS NOT NULL)
                    AND EXISTS (SELECT FROM account.delivered AS d
                                WHERE d.tenant_id = i.tenant_id AND d.event_id = i.event_id
                                  AND d.received_at BETWEEN i.received_at - interval '3 days'
                                                        AND i.received_at + interval '3 days')
                   THEN 'duplicate'
               ELSE 'added'
           END AS outcome
    FROM input AS i
    -- A probe of the index an event, under any settings of the planner.
    LEFT JOIN LATERAL (
        SELECT e.*, false AS at_shadow FROM analytics.events AS e
        WHERE e.tenant_id = i.tenant_id AND e.received_at = i.received_at AND e.event_id = i.event_id
        UNION ALL
        SELECT e.*, true FROM shadow.events AS e
        WHERE i.is_shadow AND e.tenant_id = i.tenant_id AND e.received_at = i.received_at AND e.event_id = i.event_id
        LIMIT 1) AS old ON true
), changed AS MATERIALIZED (
    SELECT c.*, old.hash, old.row AS before,
           jsonb_build_object(
               'message_id', c.message_id, 'type', c.type, 'name', c.name, 'user_id', c.user_id,
               'anonymous_id', c.anonymous_id, 'group_id', c.group_id, 'previous_id', c.previous_id,
               'occurred_at', c.occurred_at, 'properties', c.properties, 'traits', c.traits, 'context', c.context) AS made
    FROM compared AS c
    CROSS JOIN LATERAL (
        SELECT md5(e::text)::uuid AS hash, to_jsonb(e) AS row FROM analytics.events AS e
        WHERE NOT c.at_shadow AND e.tenant_id = c.tenant_id AND e.received_at = c.received_at
          AND e.event_id = c.event_id
        UNION ALL
        SELECT md5(e::text)::uuid, to_jsonb(e) FROM shadow.events AS e
        WHERE c.at_shadow AND e.tenant_id = c.tenant_id AND e.received_at = c.received_at AND e.event_id = c.event_id
        LIMIT 1) AS old
    WHERE c.outcome = 'changed'
), kept AS (
    INSERT INTO replay.scratch (replay_id, chunk, tenant_id, event_id, received_at, action, is_shadow, fields,
                                before_hash, row)
    SELECT %(replay_id)s, %(chunk)s, tenant_id, event_id, received_at, 'changed', at_shadow,
           ARRAY(SELECT key FROM jsonb_each(made) AS m(key, value)
                 WHERE key NOT IN ('properties', 'traits', 'context')
                   AND value::text IS DISTINCT FROM (before -> key)::text ORDER BY key)
               || replay.changed_keys('properties', before -> 'properties', made -> 'properties')
               || replay.changed_keys('traits', before -> 'traits', made -> 'traits')
               || replay.changed_keys('context', before -> 'context', made -> 'context'),
           hash, before || made
    FROM changed
), counted AS (
    INSERT INTO replay.counts AS n (replay_id, chunk, tenant_id, hour, events, changed, unchanged, duplicate, discarded)
    SELECT %(replay_id)s, %(chunk)s, tenant_id, %(hour)s, count(*), count(*) FILTER (WHERE outcome = 'changed'),
           count(*) FILTER (WHERE outcome = 'unchanged'), count(*) FILTER (WHERE outcome = 'duplicate'),
           count(*) FILTER (WHERE outcome = 'discarded')
    FROM compared GROUP BY tenant_id
    ON CONFLICT (replay_id, chunk, tenant_id) DO UPDATE SET
        events = n.events + excluded.events, changed = n.changed + excluded.changed,
        unchanged = n.unchanged + excluded.unchanged, duplicate = n.duplicate + excluded.duplicate,
        discarded = n.discarded + excluded.discarded
)
SELECT place FROM compared WHERE outcome = 'added'

-- name: keep_added
WITH input AS MATERIALIZED (
    SELECT *
    FROM unnest(%(tenant_id)s::integer[], %(event_id)s::uuid[], %(batch_id)s::bigint[], %(is_shadow)s::boolean[],
                %(epoch)s::integer[], %(message_id)s::text[], %(type)s::text[], %(name)s::text[], %(user_id)s::text[],
                %(anonymous_id)s::text[], %(group_id)s::text[], %(previous_id)s::text[], %(occurred_at)s::timestamptz[],
                %(received_at)s::timestamptz[], %(properties)s::jsonb[], %(traits)s::jsonb[], %(context)s::jsonb[],
                %(tenant_name)s::text[], %(tenant_plan)s::text[], %(user_traits)s::jsonb[], %(group_traits)s::jsonb[])
        AS i(tenant_id, event_id, batch_id, is_shadow, epoch, message_id, type, name, user_id, anonymous_id, group_id,
             previous_id, occurred_at, received_at, properties, traits, context, tenant_name, tenant_plan, user_traits,
             group_traits)
), kept AS (
    INSERT INTO replay.scratch (replay_id, chunk, tenant_id, event_id, received_at, action, is_shadow, row)
    SELECT %(replay_id)s, %(chunk)s, tenant_id, event_id, received_at, 'added', is_shadow, to_jsonb(i) - 'is_shadow'
    FROM input AS i
    -- An identity that another chunk adds is added once.
    ON CONFLICT DO NOTHING
    RETURNING tenant_id
)
UPDATE replay.counts AS c SET added = c.added + n.added, duplicate = c.duplicate + n.events - n.added
FROM (SELECT i.tenant_id, count(*) AS events, coalesce(max(k.added), 0) AS added
      FROM input AS i LEFT JOIN (SELECT tenant_id, count(*) AS added FROM kept GROUP BY tenant_id) AS k USING (tenant_id)
      GROUP BY i.tenant_id) AS n
WHERE c.tenant_id = n.tenant_id AND c.replay_id = %(replay_id)s AND c.chunk = %(chunk)s

-- name: count_failed
INSERT INTO replay.counts AS c (replay_id, chunk, tenant_id, hour, events, failed, discarded)
SELECT %(replay_id)s, %(chunk)s, tenant_id, %(hour)s, failed + discarded, failed, discarded
FROM unnest(%(tenant_id)s::integer[], %(failed)s::bigint[], %(discarded)s::bigint[])
    AS i(tenant_id, failed, discarded)
ON CONFLICT (replay_id, chunk, tenant_id) DO UPDATE
SET events = c.events + excluded.events, failed = c.failed + excluded.failed,
    discarded = c.discarded + excluded.discarded

-- name: sweep
WITH occurrence AS MATERIALIZED (
    SELECT DISTINCT tenant_id, event_id FROM queue.events
    WHERE batch_received_at >= %(hour)s AND batch_received_at < %(hour)s + interval '1 hour'
), stray AS (
    SELECT e.tenant_id, e.event_id, e.received_at, false AS is_shadow, md5(e::text)::uuid AS hash, to_jsonb(e) AS row
    FROM analytics.events AS e
    WHERE e.received_at >= greatest(%(hour)s, %(window_start)s)
      AND e.received_at < least(%(hour)s + interval '1 hour', %(window_end)s)
      AND (%(tenant_ids)s::integer[] IS NULL OR e.tenant_id = ANY(%(tenant_ids)s::integer[]))
      AND (%(types)s::text[] IS NULL OR e.type = ANY(%(types)s::text[]))
      AND NOT EXISTS (SELECT FROM occurrence AS o WHERE o.tenant_id = e.tenant_id AND o.event_id = e.event_id)
), kept AS (
    INSERT INTO replay.scratch (replay_id, chunk, tenant_id, event_id, received_at, action, is_shadow, before_hash, row)
    SELECT %(replay_id)s, %(chunk)s, tenant_id, event_id, received_at, 'removed', is_shadow, hash, row
    FROM stray
    ON CONFLICT DO NOTHING
    RETURNING tenant_id
)
INSERT INTO replay.counts (replay_id, chunk, tenant_id, hour, removed)
SELECT %(replay_id)s, %(chunk)s, tenant_id, %(hour)s, count(*) FROM kept GROUP BY tenant_id

-- name: take_out
-- Rows to be changed or removed leave production, where they are still what the diff saw; what they were is kept.
WITH todo AS MATERIALIZED (
    SELECT * FROM replay.scratch
    WHERE replay_id = %(replay_id)s AND chunk = %(chunk)s AND action IN ('changed', 'removed')
      AND NOT is_shadow AND committed_as IS NULL
), gone AS (
    DELETE FROM analytics.events AS e USING todo AS t
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
    FROM todo AS t JOIN gone AS g USING (tenant_id, event_id) LEFT JOIN keyless AS k USING (tenant_id, event_id)
)
UPDATE replay.scratch AS s
SET committed_as = CASE WHEN EXISTS (SELECT FROM gone AS g WHERE g.tenant_id = s.tenant_id AND g.event_id = s.event_id)
                        THEN s.action::text ELSE 'skipped' END
WHERE s.replay_id = %(replay_id)s AND s.chunk = %(chunk)s AND s.action IN ('changed', 'removed') AND NOT s.is_shadow
  AND s.committed_as IS NULL

-- name: put_changed
INSERT INTO analytics.events
SELECT r.*
FROM replay.scratch AS s
CROSS JOIN LATERAL jsonb_populate_record(NULL::analytics.events,
                                         s.row || jsonb_build_object('replay_id', s.replay_id)) AS r
WHERE s.replay_id = %(replay_id)s AND s.chunk = %(chunk)s AND s.committed_as = 'changed' AND NOT s.is_shadow

-- name: put_added
-- What production lacks, by its identity; a dead letter of it is thereby delivered.
WITH open_generation AS MATERIALIZED (SELECT max(generation) AS generation FROM analytics.key_generations),
todo AS MATERIALIZED (
    SELECT s.*, s.row ->> 'batch_id' AS batch FROM replay.scratch AS s
    WHERE s.replay_id = %(replay_id)s AND s.chunk = %(chunk)s AND s.action = 'added' AND NOT s.is_shadow
      AND s.committed_as IS NULL
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
    -- A key whose row is gone is the event's own.
    WHERE f.event_id IS NOT NULL
       OR EXISTS (SELECT FROM analytics.keys AS k WHERE k.tenant_id = t.tenant_id AND k.event_id = t.event_id
                  AND k.received_at = t.received_at)
), put AS (
    INSERT INTO analytics.events
    SELECT r.*
    FROM keyed AS t
    CROSS JOIN LATERAL jsonb_populate_record(
        NULL::analytics.events,
        t.row || jsonb_build_object('replay_id', t.replay_id, 'delivered_at', clock_timestamp())) AS r
    ON CONFLICT DO NOTHING
    RETURNING tenant_id, event_id
), letters AS (
    UPDATE queue.dead_letters AS d SET state = 'delivered', next_attempt_at = NULL, resolved_at = now(),
           reason = 'replay ' || %(replay_id)s
    FROM put AS p JOIN todo AS t USING (tenant_id, event_id)
    WHERE d.tenant_id = p.tenant_id AND d.event_id = p.event_id AND d.batch_id = t.batch::bigint
      AND d.state IN ('waiting', 'exhausted')
    RETURNING d.tenant_id, d.event_id, d.dead_letter_id, d.batch_received_at, d.lane, d.stage
), counted AS (
    INSERT INTO account.deltas (tenant_id, hour, lane, dead_lettered, delivered, enriched)
    SELECT tenant_id, date_trunc('hour', batch_received_at, 'UTC'), lane, -count(*), count(*),
           count(*) FILTER (WHERE stage <> 'load')
    FROM letters GROUP BY 1, 2, 3
), images AS (
    INSERT INTO replay.before_images (replay_id, chunk, tenant_id, event_id, received_at, action, is_shadow, had_key,
                                      dead_letter_id)
    SELECT DISTINCT ON (t.tenant_id, t.event_id) t.replay_id, t.chunk, t.tenant_id, t.event_id, t.received_at, t.action,
           t.is_shadow, NOT t.is_fresh, l.dead_letter_id
    FROM keyed AS t JOIN put AS p USING (tenant_id, event_id) LEFT JOIN letters AS l USING (tenant_id, event_id)
)
UPDATE replay.scratch AS s
SET committed_as = CASE WHEN EXISTS (SELECT FROM put AS p WHERE p.tenant_id = s.tenant_id AND p.event_id = s.event_id)
                        THEN 'added' ELSE 'skipped' END
WHERE s.replay_id = %(replay_id)s AND s.chunk = %(chunk)s AND s.action = 'added' AND NOT s.is_shadow
  AND s.committed_as IS NULL

-- name: keep_traits
-- The traits of the rows as they are now; of the same event the corrected value replaces the earlier one.
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
WHERE s.subject_id <> ''
ORDER BY s.tenant_id, s.kind, s.subject_id, v.key, s.as_of DESC, s.event_id DESC
ON CONFLICT (tenant_id, kind, subject_id, name) DO UPDATE
SET value = excluded.value, as_of = excluded.as_of, event_id = excluded.event_id
WHERE (t.as_of, t.event_id) <= (excluded.as_of, excluded.event_id)

-- name: count_chunk
-- In the funnel a replayed event is one more occurrence of what was accepted before.
INSERT INTO account.deltas (tenant_id, hour, lane, received, accepted, claimed, enriched, duplicate)
SELECT tenant_id, hour, 'replay'::queue.lane, n, n, n, n, n
FROM replay.counts CROSS JOIN LATERAL (SELECT events - failed - discarded AS n) AS replayed
WHERE replay_id = %(replay_id)s AND chunk = %(chunk)s AND n > 0

-- name: undo_take_out
-- What the commit wrote leaves production, where no later replay wrote over it.
WITH todo AS MATERIALIZED (
    SELECT * FROM replay.before_images
    WHERE replay_id = %(replay_id)s AND chunk = %(chunk)s AND NOT is_shadow AND NOT is_restored
), gone AS (
    DELETE FROM analytics.events AS e USING todo AS t
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
    WHERE d.tenant_id = t.tenant_id AND d.dead_letter_id = t.dead_letter_id
    RETURNING d.tenant_id, d.batch_received_at, d.lane, d.stage
), counted AS (
    INSERT INTO account.deltas (tenant_id, hour, lane, dead_lettered, delivered, enriched)
    SELECT tenant_id, date_trunc('hour', batch_received_at, 'UTC'), lane, count(*), -count(*),
           -count(*) FILTER (WHERE stage <> 'load')
    FROM letters GROUP BY 1, 2, 3
)
UPDATE replay.before_images AS i SET is_restored = true
WHERE i.replay_id = %(replay_id)s AND i.chunk = %(chunk)s AND NOT i.is_shadow
  AND (i.action = 'removed'
       OR EXISTS (SELECT FROM gone AS g WHERE g.tenant_id = i.tenant_id AND g.event_id = i.event_id))

-- name: undo_put_back
WITH open_generation AS MATERIALIZED (SELECT max(generation) AS generation FROM analytics.key_generations),
todo AS MATERIALIZED (
    SELECT * FROM replay.before_images
    WHERE replay_id = %(replay_id)s AND chunk = %(chunk)s AND NOT is_shadow AND is_restored AND row IS NOT NULL
), keyed AS (
    INSERT INTO analytics.keys (generation, tenant_id, event_id, received_at)
    SELECT g.generation, t.tenant_id, t.event_id, t.received_at
    FROM todo AS t CROSS JOIN open_generation AS g
    WHERE t.action = 'removed' AND t.had_key
    ON CONFLICT DO NOTHING
)
INSERT INTO analytics.events
SELECT r.* FROM todo AS t CROSS JOIN LATERAL jsonb_populate_record(NULL::analytics.events, t.row) AS r
ON CONFLICT DO NOTHING

-- name: chunk_done
UPDATE replay.chunks SET
    diffed_at = CASE WHEN %(state)s = 'diffing' THEN clock_timestamp() ELSE diffed_at END,
    committed_at = CASE WHEN %(state)s = 'committing' THEN clock_timestamp() ELSE committed_at END,
    undone_at = CASE WHEN %(state)s = 'undoing' THEN clock_timestamp() ELSE undone_at END,
    is_done = true, attempts = 0, taken_by = NULL
WHERE replay_id = %(replay_id)s AND chunk = %(chunk)s

-- name: finish
-- The last chunk ends the step. Asked after a chunk's own commit, so of two that end together one sees both.
UPDATE replay.replays AS r SET
    state = CASE r.state WHEN 'diffing' THEN 'diffed'::replay.state WHEN 'committing' THEN 'committed' ELSE 'undone' END,
    diffed_at = CASE WHEN r.state = 'diffing' THEN clock_timestamp() ELSE r.diffed_at END,
    committed_at = CASE WHEN r.state = 'committing' THEN clock_timestamp() ELSE r.committed_at END,
    undone_at = CASE WHEN r.state = 'undoing' THEN clock_timestamp() ELSE r.undone_at END
WHERE r.state IN ('diffing', 'committing', 'undoing') AND NOT EXISTS (
    SELECT FROM replay.chunks AS c WHERE c.replay_id = r.replay_id AND NOT c.is_done)
