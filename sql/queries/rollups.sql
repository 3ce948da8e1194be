-- name: no_time_limit
-- Removes the statement time-out for this transaction.
SET LOCAL statement_timeout = 0

-- name: refresh
-- Counts marked roll-ups again.
SELECT analytics.refresh_rollups(%s)

-- name: fold
-- Folds deltas into the account's counters.
SELECT account.fold(%s)

-- name: newest_mark
-- The newest mark.
SELECT coalesce(max(mark_id), 0) FROM analytics.rollup_marks

-- name: is_marked
-- Whether any mark up to this one is left.
SELECT EXISTS (SELECT FROM analytics.rollup_marks WHERE mark_id <= %s)

-- name: mark
-- Marks all tenants of the hours.
INSERT INTO analytics.rollup_marks (tenant_id, received_hour)
SELECT t.tenant_id, h.hour
FROM unnest(%(hours)s::timestamptz[]) AS h(hour)
CROSS JOIN LATERAL (SELECT tenant_id FROM control.tenants
                    UNION SELECT tenant_id FROM analytics.rollups WHERE received_hour = h.hour) AS t

-- name: tenants
-- All tenants that may have rows or cells of the hour. Cells of an unknown tenant are included.
SELECT tenant_id, name FROM control.tenants
UNION
SELECT r.tenant_id, r.tenant_id::text FROM analytics.rollups AS r
WHERE r.received_hour = %(hour)s AND NOT EXISTS (SELECT FROM control.tenants AS t WHERE t.tenant_id = r.tenant_id)
ORDER BY tenant_id

-- name: unrolled
-- Tenants whose rows of the hour may not be rolled up yet.
SELECT tenant_id FROM analytics.unrolled WHERE received_hour = %(hour)s

-- name: cells
-- The roll-ups of one hour of received_at.
SELECT tenant_id, hour, type, name, events FROM analytics.rollups
WHERE received_hour = %(hour)s

-- name: delivered
-- Deliveries of the hour by the account, and the rows of shadow epochs, which are not production.
SELECT t.tenant_id,
       coalesce((SELECT sum(f.delivered) FROM account.funnel AS f
                 WHERE f.tenant_id = t.tenant_id AND f.hour = %(hour)s), 0)::bigint,
       (SELECT count(*) FROM shadow.events AS s
        WHERE s.tenant_id = t.tenant_id AND s.received_at >= %(hour)s AND s.received_at < %(hour)s + interval '1 hour')
FROM unnest(%(tenant_ids)s::integer[]) AS t(tenant_id)

-- name: identities
-- Tenants whose rows of the hour contain an identity twice, or whose rows are as many as were accepted but of other
-- events. Hours without batches are judged by the first condition only.
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
-- Records when an hour's roll-ups were compared with the rows.
INSERT INTO analytics.rollup_hours AS h (received_hour, checked_at) VALUES (%(hour)s, %(at)s)
ON CONFLICT (received_hour) DO UPDATE SET checked_at = excluded.checked_at

-- name: now
-- The database's clock.
SELECT clock_timestamp()

-- name: unchecked_hours
-- Past hours whose cells changed since they were compared with the rows. Hours with batches are compared once a day as
-- well, because manual changes leave no trace.
SELECT h.hour
FROM queue.hours AS h LEFT JOIN analytics.rollup_hours AS r ON r.received_hour = h.hour
WHERE h.hour >= %(first)s AND h.hour + interval '1 hour' <= clock_timestamp() AND h.sealed_at IS NOT NULL
  AND ((r.checked_at IS NULL AND h.dropped_at IS NULL) OR r.changed_at > r.checked_at
       OR (h.dropped_at IS NULL AND r.checked_at + interval '1 day' < clock_timestamp()))
ORDER BY h.hour
