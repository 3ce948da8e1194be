-- All delivered rows, in production and in shadow.
CREATE OR REPLACE VIEW account.delivered AS
SELECT tenant_id, event_id, message_id, type, name, user_id, anonymous_id, group_id, previous_id, occurred_at, received_at,
       delivered_at, properties, traits, context, batch_id, epoch, recovery_id, false AS is_shadow, digest
FROM analytics.events
UNION ALL
SELECT tenant_id, event_id, message_id, type, name, user_id, anonymous_id, group_id, previous_id, occurred_at, received_at,
       delivered_at, properties, traits, context, batch_id, epoch, recovery_id, true, digest
FROM shadow.events;
