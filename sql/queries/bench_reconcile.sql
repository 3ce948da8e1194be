-- name: fill_platform
-- Fills the platform's output, in the form that a worker loads.
INSERT INTO shadow.events (tenant_id, event_id, message_id, type, name, user_id, occurred_at, received_at, delivered_at,
                           properties, context, batch_id, epoch, digest)
SELECT tenant_id, event_id, message_id, type, name, user_id, at, at, at + interval '5 ms', properties, context, batch_id,
       %(epoch)s,
       reconcile.digest(reconcile.kept_columns(), tenant_id, event_id, type, name, user_id, NULL, NULL, NULL, message_id, at,
                        properties, NULL, context)
FROM (SELECT 1 + n %% 400 AS tenant_id, md5(n::text)::uuid AS event_id, n::text AS message_id, 'track' AS type,
             'Clicked' AS name, 'u' || n %% 100000 AS user_id,
             %(start)s::timestamptz + n * (interval '1 hour' / %(rows)s) AS at,
             jsonb_build_object('n', n, 'price', n %% 7, 'path', '/p/' || n %% 50) AS properties,
             '{"ip": "10.0.0.1"}'::jsonb AS context, 1 + n / 1000 AS batch_id
      FROM generate_series(0, %(rows)s - 1) AS n) AS made

-- name: fill_keys
-- Fills the identity keys from the platform's output.
INSERT INTO analytics.keys SELECT 1, tenant_id, event_id, received_at FROM shadow.events

-- name: fill_batches
-- Fills the batches from the platform's output.
INSERT INTO queue.batches (batch_id, received_at, lane, events, tenant_ids, event_ids, client_ats, types, lengths, codec,
                           payload, epoch, received_ats, identities)
SELECT batch_id, min(received_at), 'live', count(*), array_agg(tenant_id ORDER BY received_at),
       array_agg(event_id ORDER BY received_at), array_agg(NULL::timestamptz), array_agg('t'::"char"), array_agg(0),
       'plain', '', min(epoch), array_agg(received_at ORDER BY received_at),
       bit_xor(uuid_hash_extended(event_id, tenant_id))
FROM shadow.events GROUP BY batch_id

-- name: fill_legacy
-- Fills the legacy pipeline's output with the same events.
INSERT INTO legacy.events (tenant_id, event_id, message_id, type, name, user_id, occurred_at, arrived_at, delivered_at,
                           properties, context)
SELECT tenant_id, event_id, message_id, type, name, user_id, occurred_at, received_at + interval '20 ms',
       received_at + interval '90 ms', properties, context
FROM shadow.events

-- name: plant
-- Chooses about %(each)s events of each kind of difference, across tenants and times: a missing event, an extra event,
-- another value, another type of a value.
CREATE TABLE planted AS
SELECT tenant_id, event_id, (ARRAY['missing', 'extra', 'value', 'type'])[1 + row_number() OVER (ORDER BY event_id) %% 4]
       AS kind
FROM legacy.events ORDER BY event_id LIMIT 4 * %(each)s

-- name: plant_extra
-- Inserts the planted extra events.
INSERT INTO legacy.events (tenant_id, event_id, message_id, type, occurred_at, arrived_at)
SELECT tenant_id, md5(event_id::text)::uuid, event_id::text, type, occurred_at, arrived_at
FROM legacy.events JOIN planted USING (tenant_id, event_id) WHERE kind = 'extra'

-- name: plant_values
-- Changes values, and types of values, of the planted events.
UPDATE legacy.events AS e
SET name = CASE WHEN kind = 'value' THEN 'Clicked!' ELSE name END,
    properties = CASE WHEN kind = 'type' THEN jsonb_set(properties, '{price}', to_jsonb(properties ->> 'price'))
                 ELSE properties END
FROM planted AS p WHERE e.tenant_id = p.tenant_id AND e.event_id = p.event_id AND kind IN ('value', 'type')

-- name: plant_missing
-- Deletes the planted missing events.
DELETE FROM legacy.events AS e USING planted AS p
WHERE e.tenant_id = p.tenant_id AND e.event_id = p.event_id AND kind = 'missing'

-- name: drop_some
-- Drops about 15 of 100 events across all tenants and times, like a legacy pipeline in trouble.
DELETE FROM legacy.events WHERE uuid_hash(event_id) & 127 < 19

-- name: wrongly_named
-- Counts planted differences that were not found as their kind, and found differences that were not planted.
SELECT count(*)
FROM (SELECT tenant_id, CASE WHEN kind = 'extra' THEN md5(event_id::text)::uuid ELSE event_id END AS event_id, kind
      FROM planted) AS p
FULL JOIN (SELECT tenant_id, event_id, CASE WHEN kind <> 'mismatched' THEN kind
                                            WHEN fields ? 'name' THEN 'value' ELSE 'type' END AS kind
           FROM reconcile.differences WHERE kind <> 'dropped') AS d USING (tenant_id, event_id, kind)
WHERE p.event_id IS NULL OR d.event_id IS NULL

-- name: anti_join
-- The simplest comparison, for reference: it finds only the ids that are missing.
SELECT count(*) FROM shadow.events AS s
WHERE s.received_at >= %(start)s AND s.received_at < %(end)s
  AND NOT EXISTS (SELECT FROM legacy.output AS l WHERE l.tenant_id = s.tenant_id AND l.event_id = s.event_id)

-- name: open
-- Opens the hour.
SELECT queue.open_hour(%(start)s::timestamptz)

-- name: shadow_epoch
-- Starts a shadow epoch.
INSERT INTO control.epochs (epoch, phase) VALUES (2, 'shadow') RETURNING epoch

-- name: settle_at_once
-- Lets windows settle at once.
UPDATE control.legacy_target SET settle_s = 0
