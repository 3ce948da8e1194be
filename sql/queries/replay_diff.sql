-- name: batches
-- The batches of a chunk.
SELECT b.*
FROM (
    SELECT batch_id, received_at FROM queue.batches
    WHERE received_at >= %(hour)s AND received_at < %(hour)s + interval '1 hour'
      AND batch_id BETWEEN %(first_batch)s AND %(last_batch)s
      AND (%(tenant_ids)s::integer[] IS NULL OR tenant_ids && %(tenant_ids)s::integer[])
) AS wanted
CROSS JOIN LATERAL (
    SELECT * FROM queue.encoded_batches AS own
    WHERE own.batch_id = wanted.batch_id AND own.received_at = wanted.received_at OFFSET 0
) AS b
ORDER BY b.batch_id

-- name: erased
-- The erased events of a chunk.
SELECT batch_id, event_index FROM control.erased_events
WHERE batch_received_at >= %(hour)s AND batch_received_at < %(hour)s + interval '1 hour'
  AND batch_id BETWEEN %(first_batch)s AND %(last_batch)s AND event_index >= 0

-- name: compare
-- Compares processed events with the delivered rows, stores the changed ones, and returns the places of those that
-- production lacks. Values that look-ups added to a row stay, because they are as of the event's own time.
WITH input AS MATERIALIZED (
    SELECT *
    FROM unnest(%(place)s::integer[], %(tenant_id)s::integer[], %(event_id)s::uuid[], %(is_first)s::boolean[],
                %(batch_id)s::bigint[], %(event_index)s::integer[], %(is_shadow)s::boolean[], %(message_id)s::text[],
                %(type)s::text[], %(name)s::text[], %(user_id)s::text[], %(anonymous_id)s::text[], %(group_id)s::text[],
                %(previous_id)s::text[], %(occurred_at)s::timestamptz[], %(received_at)s::timestamptz[],
                %(properties)s::jsonb[], %(traits)s::jsonb[], %(context)s::jsonb[], %(rest)s::jsonb[])
        AS i(place, tenant_id, event_id, is_first, batch_id, event_index, is_shadow, message_id, type, name, user_id,
             anonymous_id, group_id, previous_id, occurred_at, received_at, properties, traits, context, rest)
), compared AS MATERIALIZED (
    SELECT i.*, old.at_shadow,
           CASE
               WHEN NOT i.is_first THEN 'duplicate'
               WHEN old.event_id IS NOT NULL THEN CASE
                   WHEN old.batch_id <> i.batch_id THEN 'duplicate'
                   -- By image: 1.5 and 1.50 are two values.
                   WHEN %(only_missing)s OR record_image_eq(ROW(i.message_id, i.type, i.name, i.user_id, i.anonymous_id, i.group_id,
                         i.previous_id, i.occurred_at, i.properties, i.traits, i.context, i.rest),
                       ROW(old.message_id, old.type, old.name, old.user_id, old.anonymous_id, old.group_id,
                         old.previous_id, old.occurred_at, old.properties, old.traits, old.context, old.rest))
                   THEN 'unchanged' ELSE 'changed' END
               WHEN EXISTS (SELECT FROM queue.dead_letters AS d
                            WHERE d.batch_id = i.batch_id AND d.event_index = i.event_index AND d.state = 'discarded')
                   THEN 'discarded'
               -- A retry found the row of its identity. The identity key may be gone since.
               WHEN EXISTS (SELECT FROM queue.dead_letters AS d
                            WHERE d.batch_id = i.batch_id AND d.event_index = i.event_index AND d.state = 'duplicate')
                   THEN 'duplicate'
               WHEN EXISTS (SELECT FROM analytics.keys AS k
                            WHERE k.tenant_id = i.tenant_id AND k.event_id = i.event_id
                              AND k.received_at <> i.received_at)
                   THEN 'duplicate'
               ELSE 'added'
           END AS outcome
    FROM input AS i
    -- One index probe per event, under any settings of the planner.
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
               'occurred_at', c.occurred_at, 'properties', c.properties, 'traits', c.traits, 'context', c.context,
               'rest', c.rest) AS made
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
                 WHERE key NOT IN ('properties', 'traits', 'context', 'rest')
                   AND value::text IS DISTINCT FROM (before -> key)::text ORDER BY key)
               || replay.changed_keys('properties', before -> 'properties', made -> 'properties')
               || replay.changed_keys('traits', before -> 'traits', made -> 'traits')
               || replay.changed_keys('context', before -> 'context', made -> 'context')
               || replay.changed_keys('rest', before -> 'rest', made -> 'rest'),
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
-- Stores the events that production lacks.
WITH input AS MATERIALIZED (
    SELECT *
    FROM unnest(%(tenant_id)s::integer[], %(event_id)s::uuid[], %(batch_id)s::bigint[], %(is_shadow)s::boolean[],
                %(epoch)s::integer[], %(message_id)s::text[], %(type)s::text[], %(name)s::text[], %(user_id)s::text[],
                %(anonymous_id)s::text[], %(group_id)s::text[], %(previous_id)s::text[], %(occurred_at)s::timestamptz[],
                %(received_at)s::timestamptz[], %(properties)s::jsonb[], %(traits)s::jsonb[], %(context)s::jsonb[],
                %(tenant_name)s::text[], %(tenant_plan)s::text[], %(user_traits)s::jsonb[], %(group_traits)s::jsonb[],
                %(rest)s::jsonb[])
        AS i(tenant_id, event_id, batch_id, is_shadow, epoch, message_id, type, name, user_id, anonymous_id, group_id,
             previous_id, occurred_at, received_at, properties, traits, context, tenant_name, tenant_plan, user_traits,
             group_traits, rest)
), kept AS (
    INSERT INTO replay.scratch (replay_id, chunk, tenant_id, event_id, received_at, action, is_shadow, row)
    SELECT %(replay_id)s, %(chunk)s, tenant_id, event_id, received_at, 'added', is_shadow, to_jsonb(i) - 'is_shadow'
    FROM input AS i
    -- If another chunk adds the same identity, it is added once.
    ON CONFLICT DO NOTHING
    RETURNING tenant_id
)
UPDATE replay.counts AS c SET added = c.added + n.added, duplicate = c.duplicate + n.events - n.added
FROM (SELECT i.tenant_id, count(*) AS events, coalesce(max(k.added), 0) AS added
      FROM input AS i LEFT JOIN (SELECT tenant_id, count(*) AS added FROM kept GROUP BY tenant_id) AS k USING (tenant_id)
      GROUP BY i.tenant_id) AS n
WHERE c.tenant_id = n.tenant_id AND c.replay_id = %(replay_id)s AND c.chunk = %(chunk)s

-- name: count_failed
-- Counts events that failed or were discarded.
INSERT INTO replay.counts AS c (replay_id, chunk, tenant_id, hour, events, failed, discarded)
SELECT %(replay_id)s, %(chunk)s, tenant_id, %(hour)s, failed + discarded, failed, discarded
FROM unnest(%(tenant_id)s::integer[], %(failed)s::bigint[], %(discarded)s::bigint[])
    AS i(tenant_id, failed, discarded)
ON CONFLICT (replay_id, chunk, tenant_id) DO UPDATE
SET events = c.events + excluded.events, failed = c.failed + excluded.failed,
    discarded = c.discarded + excluded.discarded

-- name: hold_hour
-- Prevents a drop of the hour while it is searched.
SELECT pg_advisory_xact_lock_shared(queue.hour_lock(%(hour)s))

-- name: proof
-- Proves that an hour can be swept: events planned, events read by its chunks, events kept in batches of the replay's
-- tenants, accepted events that no batch holds, and whether the hour is kept.
SELECT own.planned, own.read, found.kept, replay.missing_events(%(hour)s),
       EXISTS (SELECT FROM queue.hours WHERE hour = %(hour)s AND dropped_at IS NULL)
FROM (SELECT coalesce(sum(events), 0)::bigint AS planned,
             coalesce(sum(CASE WHEN diffed_at IS NOT NULL THEN read_events END), 0)::bigint AS read
      FROM replay.chunks WHERE replay_id = %(replay_id)s AND hour = %(hour)s AND NOT is_sweep) AS own
CROSS JOIN (SELECT coalesce(sum(b.events), 0)::bigint AS kept FROM queue.batches AS b
            WHERE b.received_at >= %(hour)s AND b.received_at < %(hour)s + interval '1 hour'
              AND (%(tenant_ids)s::integer[] IS NULL OR b.tenant_ids && %(tenant_ids)s::integer[])) AS found

-- name: sweep
-- Stores production's rows that no accepted event of the hour stands for, to be removed.
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
