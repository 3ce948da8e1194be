-- name: received_hours
-- The hours of received_at that hold rows of a window of occurred_at, by the roll-ups. Hours that may not be rolled up
-- yet are included.
SELECT received_hour, sum(events)::bigint FROM (
    SELECT received_hour, events FROM analytics.rollups
    WHERE tenant_id = %(tenant_id)s AND hour >= date_trunc('hour', %(start)s::timestamptz, 'UTC') AND hour < %(end)s
    UNION ALL
    SELECT received_hour, 0 FROM analytics.unrolled WHERE tenant_id = %(tenant_id)s) AS h
GROUP BY 1 ORDER BY 1

-- name: expected
-- The approximate number of rows in a window of received_at: whole hours of what is rolled up.
SELECT coalesce(sum(events), 0)::bigint FROM analytics.rollups
WHERE tenant_id = %(tenant_id)s AND received_hour >= date_trunc('hour', %(start)s::timestamptz, 'UTC')
  AND received_hour < %(end)s

-- name: rows
-- The rows to export. JSON is the text that PostgreSQL keeps, so no number is rounded.
SELECT event_id::text, message_id, type, name, user_id, anonymous_id, group_id, previous_id, occurred_at, received_at,
       delivered_at, properties::text, traits::text, context::text, user_traits::text, group_traits::text,
       rest::text
FROM analytics.events
WHERE tenant_id = %(tenant_id)s AND received_at >= %(received_from)s AND received_at < %(received_to)s
  AND (%(occurred_from)s::timestamptz IS NULL
       OR (occurred_at >= %(occurred_from)s AND occurred_at < %(occurred_to)s::timestamptz))
ORDER BY received_at, event_id

-- name: count
-- Counts the rows of the query `rows`.
SELECT date_trunc('hour', occurred_at, 'UTC'), type, name, count(*) FROM ({rows}) AS counted GROUP BY 1, 2, 3
