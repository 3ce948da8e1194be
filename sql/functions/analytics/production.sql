-- Production during and after the cutover: the platform's rows, and the legacy pipeline's rows of events that the
-- platform has not delivered into production itself.
CREATE OR REPLACE VIEW analytics.production AS
SELECT 'platform' AS pipeline, tenant_id, event_id, message_id, type, name, user_id, anonymous_id, group_id, previous_id,
       occurred_at, received_at, delivered_at, properties, traits, context
FROM analytics.events
UNION ALL
SELECT * FROM (
    -- Only the first row of an event: an event that was sent twice has two rows.
    SELECT DISTINCT ON (l.tenant_id, l.event_id) 'legacy', l.tenant_id, l.event_id, l.message_id, l.type, l.name,
           l.user_id, l.anonymous_id, l.group_id, l.previous_id, l.occurred_at, l.received_at, l.delivered_at,
           l.properties, l.traits, l.context
    FROM legacy.output AS l
    -- Of the user's own table: the tenant is not known, or the identity is not stored yet.
    WHERE l.tenant_id IS NOT NULL AND l.event_id IS NOT NULL
      AND NOT EXISTS (SELECT FROM analytics.events AS e WHERE e.tenant_id = l.tenant_id AND e.event_id = l.event_id)
      -- The platform has no rights on the user's own table, so an erased person's rows stay there.
      AND ((SELECT NOT EXISTS (SELECT FROM control.erasures))
           OR NOT replay.is_erased(l.tenant_id, l.event_id, l.received_at,
                                   jsonb_build_object('user_id', l.user_id, 'anonymous_id', l.anonymous_id,
                                                      'previous_id', l.previous_id)))
    ORDER BY l.tenant_id, l.event_id, l.delivered_at) AS firsts;
