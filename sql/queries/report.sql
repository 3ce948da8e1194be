-- name: tenants
-- The account of a window, by tenant, without replays; and what replays processed of it again.
SELECT f.tenant_id, coalesce(t.name, f.tenant_id::text) AS tenant,
       coalesce(sum(received) FILTER (WHERE lane <> 'replay'), 0)::bigint AS received,
       coalesce(sum(accepted) FILTER (WHERE lane <> 'replay'), 0)::bigint AS accepted,
       coalesce(sum(rejected) FILTER (WHERE lane <> 'replay'), 0)::bigint AS rejected,
       coalesce(sum(claimed) FILTER (WHERE lane <> 'replay'), 0)::bigint AS claimed,
       coalesce(sum(enriched) FILTER (WHERE lane <> 'replay'), 0)::bigint AS enriched,
       coalesce(sum(delivered) FILTER (WHERE lane <> 'replay'), 0)::bigint AS delivered,
       coalesce(sum(duplicate) FILTER (WHERE lane <> 'replay'), 0)::bigint AS duplicate,
       coalesce(sum(dead_lettered) FILTER (WHERE lane <> 'replay'), 0)::bigint AS dead_lettered,
       coalesce(sum(discarded) FILTER (WHERE lane <> 'replay'), 0)::bigint AS discarded,
       coalesce(sum(in_flight) FILTER (WHERE lane <> 'replay'), 0)::bigint AS in_flight,
       coalesce(sum(received) FILTER (WHERE lane = 'replay'), 0)::bigint AS replayed,
       coalesce(sum(delivered) FILTER (WHERE lane = 'replay'), 0)::bigint AS replay_delivered
FROM account.funnel AS f LEFT JOIN control.tenants AS t USING (tenant_id)
WHERE f.hour >= %(start)s AND f.hour < %(end)s
GROUP BY f.tenant_id, t.name
ORDER BY received DESC, tenant

-- name: hours
-- The account of a window, by hour, without replays.
SELECT hour, sum(received)::bigint, sum(delivered)::bigint, sum(rejected + dead_lettered)::bigint
FROM account.funnel
WHERE hour >= %(start)s AND hour < %(end)s AND lane <> 'replay'
GROUP BY hour ORDER BY hour

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
