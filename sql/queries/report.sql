-- name: tenants
-- The account of a window, by tenant.
SELECT f.tenant_id, coalesce(t.name, f.tenant_id::text) AS tenant,
       sum(received)::bigint AS received, sum(accepted)::bigint AS accepted, sum(rejected)::bigint AS rejected,
       sum(claimed)::bigint AS claimed, sum(enriched)::bigint AS enriched, sum(delivered)::bigint AS delivered,
       sum(duplicate)::bigint AS duplicate, sum(dead_lettered)::bigint AS dead_lettered,
       sum(discarded)::bigint AS discarded, sum(in_flight)::bigint AS in_flight
FROM account.funnel AS f LEFT JOIN control.tenants AS t USING (tenant_id)
WHERE f.hour >= %(start)s AND f.hour < %(end)s
GROUP BY f.tenant_id, t.name
ORDER BY received DESC, tenant

-- name: hours
-- The account of a window, by hour.
SELECT hour, sum(received)::bigint, sum(delivered)::bigint, sum(rejected + dead_lettered)::bigint
FROM account.funnel WHERE hour >= %(start)s AND hour < %(end)s GROUP BY hour ORDER BY hour

-- name: rows
-- The delivered rows of a window by tenant, in production or in shadow.
SELECT tenant_id, count(*) FROM account.delivered
WHERE received_at >= %(start)s AND received_at < %(end)s GROUP BY tenant_id

-- name: causes
-- Why events have no row: rejections, waiting dead letters and discarded events, by cause.
SELECT outcome, cause, sum(events)::bigint AS events, count(DISTINCT tenant_id) AS tenants
FROM (
    SELECT 'rejected' AS outcome, code AS cause, 1 AS events, tenant_id
    FROM queue.quarantine WHERE received_at >= %(start)s AND received_at < %(end)s
    UNION ALL
    SELECT CASE state WHEN 'discarded' THEN 'discarded' ELSE 'dead letter' END, error_class, 1, tenant_id
    FROM queue.dead_letters
    WHERE batch_received_at >= %(start)s AND batch_received_at < %(end)s
      AND state IN ('waiting', 'exhausted', 'discarded')
    UNION ALL
    SELECT outcome, cause, events, tenant_id FROM queue.pruned WHERE hour >= %(start)s AND hour < %(end)s
) AS known
GROUP BY 1, 2
ORDER BY events DESC, cause
LIMIT 20

-- name: is_over
-- Whether the window is over and all its hours are sealed.
SELECT clock_timestamp() >= %(end)s AND NOT EXISTS (
    SELECT FROM queue.hours WHERE hour >= %(start)s AND hour < %(end)s AND sealed_at IS NULL AND dropped_at IS NULL)
