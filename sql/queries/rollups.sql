-- name: no_time_limit
SET LOCAL statement_timeout = 0

-- name: refresh
SELECT analytics.refresh_rollups(%s)

-- name: fold
SELECT account.fold(%s)

-- name: newest_mark
SELECT coalesce(max(mark_id), 0) FROM analytics.rollup_marks

-- name: is_marked
SELECT EXISTS (SELECT FROM analytics.rollup_marks WHERE mark_id <= %s)

-- name: mark
INSERT INTO analytics.rollup_marks (tenant_id, received_hour)
SELECT t.tenant_id, h.hour
FROM unnest(%(hours)s::timestamptz[]) AS h(hour)
CROSS JOIN LATERAL (SELECT tenant_id FROM control.tenants
                    UNION SELECT tenant_id FROM analytics.rollups WHERE received_hour = h.hour) AS t

-- name: tenants
-- All that may have rows or cells of the hour: a cell of nobody is to be found as well.
SELECT tenant_id, name FROM control.tenants
UNION
SELECT r.tenant_id, r.tenant_id::text FROM analytics.rollups AS r
WHERE r.received_hour = %(hour)s AND NOT EXISTS (SELECT FROM control.tenants AS t WHERE t.tenant_id = r.tenant_id)
ORDER BY tenant_id

-- name: unrolled
SELECT tenant_id FROM analytics.unrolled WHERE received_hour = %(hour)s

-- name: cells
SELECT tenant_id, hour, type, name, events FROM analytics.rollups
WHERE received_hour = %(hour)s

-- name: delivered
-- By the account, and the rows of shadow epochs, which are no production.
SELECT t.tenant_id,
       coalesce((SELECT sum(f.delivered) FROM account.funnel AS f
                 WHERE f.tenant_id = t.tenant_id AND f.hour = %(hour)s), 0)::bigint,
       (SELECT count(*) FROM shadow.events AS s
        WHERE s.tenant_id = t.tenant_id AND s.received_at >= %(hour)s AND s.received_at < %(hour)s + interval '1 hour')
FROM unnest(%(tenant_ids)s::integer[]) AS t(tenant_id)

-- name: identities
-- Tenants whose rows of the hour have an identity twice, or are as many as were accepted and of other events. Batches that
-- are gone say nothing.
SELECT r.tenant_id, r.rows, r.identities
FROM (SELECT tenant_id, count(*) AS rows, count(DISTINCT event_id) AS identities,
             bit_xor(uuid_hash_extended(event_id, tenant_id)) AS sum
      FROM account.delivered
      WHERE received_at >= %(hour)s AND received_at < %(hour)s + interval '1 hour'
      GROUP BY tenant_id) AS r
LEFT JOIN (SELECT tenant_id, count(*) AS events, bit_xor(uuid_hash_extended(event_id, tenant_id)) AS sum
           FROM queue.events
           WHERE batch_received_at >= %(hour)s AND batch_received_at < %(hour)s + interval '1 hour'
           GROUP BY tenant_id) AS a USING (tenant_id)
WHERE r.rows <> r.identities OR (r.rows = a.events AND r.sum <> a.sum)
ORDER BY r.tenant_id

-- name: checked
INSERT INTO analytics.rollup_hours AS h (received_hour, checked_at) VALUES (%(hour)s, %(at)s)
ON CONFLICT (received_hour) DO UPDATE SET checked_at = excluded.checked_at

-- name: now
SELECT clock_timestamp()

-- name: unchecked_hours
-- Hours that are over and whose cells changed since they were compared with the rows; and, while an hour's batches are
-- kept, once a day, since what is altered by hand leaves no trace.
SELECT h.hour
FROM queue.hours AS h LEFT JOIN analytics.rollup_hours AS r ON r.received_hour = h.hour
WHERE h.hour >= %(first)s AND h.hour + interval '1 hour' <= clock_timestamp() AND h.sealed_at IS NOT NULL
  AND ((r.checked_at IS NULL AND h.dropped_at IS NULL) OR r.changed_at > r.checked_at
       OR (h.dropped_at IS NULL AND r.checked_at + interval '1 day' < clock_timestamp()))
ORDER BY h.hour
