-- name: look_up
-- A tenant's plan and a user's traits.
SELECT t.plan, coalesce((SELECT jsonb_object_agg(name, value) FROM control.traits AS u
                         WHERE u.tenant_id = t.tenant_id AND u.kind = 'user' AND u.subject_id = %(user_id)s), 'null'::jsonb)::text
FROM control.tenants AS t WHERE t.tenant_id = %(tenant_id)s

-- name: write
-- Writes one event into the legacy pipeline's table.
INSERT INTO legacy.events (tenant_id, event_id, message_id, type, name, user_id, anonymous_id, group_id, previous_id,
                           occurred_at, arrived_at, properties, traits, context, tenant_plan, user_traits)
VALUES (%(tenant_id)s, %(event_id)s, %(message_id)s, %(type)s, %(name)s, %(user_id)s, %(anonymous_id)s, %(group_id)s,
        %(previous_id)s, %(occurred_at)s, %(arrived_at)s, %(properties)s, %(traits)s, %(context)s, %(tenant_plan)s,
        %(user_traits)s)

-- name: count
-- Counts events by stage and records the lost ones.
WITH lost AS (
    INSERT INTO legacy.losses (tenant_id, event_id, stage, cause)
    SELECT * FROM unnest(%(lost_tenant_ids)s::integer[], %(lost_event_ids)s::uuid[], %(lost_stages)s::text[],
                         %(lost_causes)s::text[])
)
INSERT INTO legacy.stage_counts AS c (tenant_id, hour, stage, arrived, proceeded, failed)
SELECT * FROM unnest(%(tenant_ids)s::integer[], %(hours)s::timestamptz[], %(stages)s::text[], %(arrived)s::bigint[],
                     %(proceeded)s::bigint[], %(failed)s::bigint[])
ON CONFLICT (tenant_id, hour, stage) DO UPDATE
SET arrived = c.arrived + excluded.arrived, proceeded = c.proceeded + excluded.proceeded,
    failed = c.failed + excluded.failed
