-- name: hour_state
-- The state of one hour.
SELECT sealed_at, seals, dropped_at FROM queue.hours WHERE hour = %(hour)s

-- name: seal_hour
-- Seals an hour, and tells whether it is still running.
SELECT queue.seal_hour(%(hour)s), %(hour)s + interval '1 hour' > clock_timestamp()

-- name: sealed_hours
-- Sealed hours that are kept.
SELECT hour, seals FROM queue.hours WHERE sealed_at IS NOT NULL AND dropped_at IS NULL ORDER BY hour

-- name: account_of_hour
-- The account of one hour, by tenant.
SELECT f.tenant_id, coalesce(t.name, f.tenant_id::text) AS tenant,
       sum(received)::bigint AS received, sum(accepted)::bigint AS accepted, sum(rejected)::bigint AS rejected,
       sum(claimed)::bigint AS claimed, sum(enriched)::bigint AS enriched, sum(delivered)::bigint AS delivered,
       sum(duplicate)::bigint AS duplicate, sum(dead_lettered)::bigint AS dead_lettered,
       sum(discarded)::bigint AS discarded, sum(in_flight)::bigint AS in_flight
FROM account.funnel AS f
LEFT JOIN control.tenants AS t USING (tenant_id)
WHERE f.hour = %(hour)s
GROUP BY f.tenant_id, t.name
ORDER BY received DESC, tenant

-- name: batches_of_hour
-- The number and stored size of an hour's batches.
SELECT count(*) AS batches, coalesce(sum(octet_length(payload)), 0)::bigint AS stored_bytes
FROM queue.batches
WHERE received_at >= %(hour)s AND received_at < %(hour)s + interval '1 hour'

-- name: bytes_of_hour
-- The bytes of an hour's events, by tenant.
SELECT e.tenant_id, sum(e.length)::bigint AS bytes
FROM queue.batches AS b
CROSS JOIN LATERAL unnest(b.tenant_ids, b.lengths) AS e(tenant_id, length)
WHERE b.received_at >= %(hour)s AND b.received_at < %(hour)s + interval '1 hour'
GROUP BY e.tenant_id

-- name: quiet_hours
-- Those of the hours in which nothing was received and nothing can arrive any more.
SELECT w.hour
FROM unnest(%(hours)s::timestamptz[]) AS w(hour)
LEFT JOIN queue.hours AS h USING (hour)
WHERE w.hour + interval '1 hour' <= clock_timestamp()
  AND (h.hour IS NULL OR h.sealed_at IS NOT NULL)
  AND NOT EXISTS (SELECT FROM account.funnel AS f WHERE f.hour = w.hour)

-- name: latency_of_hour
-- Milliseconds from received_at to the commit that delivered, by tenant. The row without a tenant is over all of them.
-- Imported events are left out: they were received by another system, long ago.
SELECT e.tenant_id,
       percentile_disc(ARRAY[0.5, 0.95, 0.99, 1]) WITHIN GROUP (
           ORDER BY extract(epoch FROM e.delivered_at - e.received_at)::float8 * 1000)
FROM unnest(%(tenant_ids)s::integer[]) AS wanted(tenant_id)
JOIN account.delivered AS e
  ON e.tenant_id = wanted.tenant_id
 AND e.received_at >= %(hour)s AND e.received_at < %(hour)s + interval '1 hour'
 AND NOT EXISTS (SELECT FROM control.import_chunks AS i WHERE i.hour = %(hour)s AND i.batch_id = e.batch_id)
GROUP BY GROUPING SETS ((e.tenant_id), ())

-- name: retained
-- What the queue retains: hours and bytes.
SELECT count(*) FILTER (WHERE dropped_at IS NULL) AS hours,
       count(*) FILTER (WHERE dropped_at IS NULL AND sealed_at IS NULL) AS unsealed,
       count(*) FILTER (WHERE dropped_at IS NOT NULL) AS dropped,
       min(hour) FILTER (WHERE dropped_at IS NULL) AS oldest,
       (SELECT coalesce(sum(pg_total_relation_size(inhrelid)), 0)::bigint
        FROM pg_inherits WHERE inhparent = 'queue.batches'::regclass) AS bytes
FROM queue.hours

-- name: overdue_hours
-- Hours that should have been dropped `grace` ago and are still kept.
SELECT hour FROM queue.hours
WHERE dropped_at IS NULL
  AND sealed_at + %(retention)s::interval + queue.unwatched_since(sealed_at) + %(grace)s::interval < clock_timestamp()
ORDER BY hour

-- name: unreconciled_hours
-- Past, sealed hours with mirrored events that can have settled and have no final comparison.
SELECT h.hour
FROM queue.hours AS h CROSS JOIN control.legacy_target AS t
WHERE h.sealed_at IS NOT NULL AND h.dropped_at IS NULL
  AND h.hour + interval '1 hour' + make_interval(secs => t.settle_s) < clock_timestamp()
  AND EXISTS (SELECT FROM queue.batches AS b JOIN control.epochs AS e USING (epoch)
              WHERE b.received_at >= h.hour AND b.received_at < h.hour + interval '1 hour' AND e.is_mirrored)
  AND NOT EXISTS (SELECT FROM reconcile.windows AS w
                  WHERE w.window_start <= h.hour AND w.window_end >= h.hour + interval '1 hour' AND w.is_settled)
ORDER BY h.hour

-- name: oldest_kept_hour
-- The oldest hour that is kept.
SELECT min(hour) FROM queue.hours WHERE dropped_at IS NULL

-- name: first_hour
-- The first hour with events, if any, and the time.
SELECT least((SELECT min(hour) FROM account.funnel), (SELECT min(hour) FROM queue.hours)), clock_timestamp()
