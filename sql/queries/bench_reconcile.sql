-- name: fill_platform
INSERT INTO shadow.events (tenant_id, event_id, message_id, type, name, user_id, occurred_at, received_at, delivered_at,
                           properties, context, batch_id, epoch)
SELECT 1 + n %% 400, md5(n::text)::uuid, n::text, 'track', 'Clicked', 'u' || n %% 100000, at, at,
       at + interval '5 ms', jsonb_build_object('n', n, 'price', n %% 7, 'path', '/p/' || n %% 50),
       '{"ip": "10.0.0.1"}', 1 + n / 1000, %(epoch)s
FROM (SELECT n, %(start)s::timestamptz + n * (interval '1 hour' / %(rows)s) AS at
      FROM generate_series(0, %(rows)s - 1) AS n) AS made

-- name: fill_keys
INSERT INTO analytics.keys SELECT 1, tenant_id, event_id, received_at FROM shadow.events

-- name: fill_batches
INSERT INTO queue.batches (batch_id, received_at, lane, events, tenant_ids, event_ids, client_ats, types, lengths, codec,
                           payload, epoch, received_ats)
SELECT batch_id, min(received_at), 'live', count(*), array_agg(tenant_id ORDER BY received_at),
       array_agg(event_id ORDER BY received_at), array_agg(NULL::timestamptz), array_agg('t'::"char"), array_agg(0),
       'plain', '', min(epoch), array_agg(received_at ORDER BY received_at)
FROM shadow.events GROUP BY batch_id

-- name: fill_legacy
INSERT INTO legacy.events (tenant_id, event_id, message_id, type, name, user_id, occurred_at, arrived_at, delivered_at,
                           properties, context)
SELECT tenant_id, event_id, message_id, type,
       -- A missing one, and another value, in a hundred thousand.
       CASE WHEN message_id LIKE '%%00007' THEN 'Clicked!' ELSE name END, user_id, occurred_at,
       received_at + interval '20 ms', received_at + interval '90 ms', properties, context
FROM shadow.events WHERE message_id NOT LIKE '%%00003'

-- name: anti_join
-- What everybody would write first: only the ids that are missing.
SELECT count(*) FROM shadow.events AS s
WHERE s.received_at >= %(start)s AND s.received_at < %(end)s
  AND NOT EXISTS (SELECT FROM legacy.output AS l WHERE l.tenant_id = s.tenant_id AND l.event_id = s.event_id)

-- name: open
SELECT queue.open_hour(%(start)s::timestamptz)

-- name: shadow_epoch
INSERT INTO control.epochs (epoch, phase) VALUES (2, 'shadow') RETURNING epoch

-- name: settle_at_once
UPDATE control.legacy_target SET settle_s = 0
