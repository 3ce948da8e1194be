-- name: queue
-- Waiting batches and events by lane.
SELECT lane::text, count(*) AS batches, sum(end_event - first_event)::bigint AS events
FROM queue.work GROUP BY lane ORDER BY lane

-- name: oldest
-- The age of the oldest waiting batch. Imports are left out: their batches carry the hour of the original reception,
-- which does not tell how late they are.
SELECT extract(epoch FROM clock_timestamp() - w.received_at)::float8 AS oldest_s
FROM (SELECT batch_id, received_at FROM queue.work ORDER BY received_at OFFSET 0) AS w
CROSS JOIN LATERAL (
    SELECT received_ats FROM queue.batches AS own
    WHERE own.batch_id = w.batch_id AND own.received_at = w.received_at OFFSET 0
) AS b
WHERE b.received_ats IS NULL
LIMIT 1

-- name: newest_batch
-- The highest batch id drawn.
SELECT CASE WHEN is_called THEN last_value ELSE 0 END AS batch_id FROM queue.batch_ids

-- name: latency
-- Latency percentiles of sampled batches of the last minutes, weighted by their events. A batch is delivered as one, so
-- its first event represents all of it. A waiting batch counts with its age.
WITH sampled AS MATERIALIZED (
    SELECT batch_id, received_at, events, tenant_ids[1] AS tenant_id, event_ids[1] AS event_id
    FROM queue.batches
    WHERE batch_id = ANY(%(batch_ids)s) AND received_at > now() - interval '5 minutes' AND received_ats IS NULL
), waiting AS MATERIALIZED (
    SELECT DISTINCT batch_id FROM queue.work WHERE batch_id = ANY(%(batch_ids)s) AND first_event = 0
), known AS (
    SELECT s.events, extract(epoch FROM coalesce(d.delivered_at, clock_timestamp()) - s.received_at) * 1000 AS ms
    FROM sampled AS s
    LEFT JOIN waiting AS w USING (batch_id)
    LEFT JOIN LATERAL (
        SELECT delivered_at FROM analytics.events AS e
        WHERE e.tenant_id = s.tenant_id AND e.received_at = s.received_at AND e.event_id = s.event_id
          AND e.received_at > now() - interval '5 minutes'
        UNION ALL
        SELECT delivered_at FROM shadow.events AS e
        WHERE e.tenant_id = s.tenant_id AND e.received_at = s.received_at AND e.event_id = s.event_id
          AND e.received_at > now() - interval '5 minutes'
    ) AS d ON true
    WHERE d.delivered_at IS NOT NULL OR w.batch_id IS NOT NULL
), ranked AS (
    SELECT ms, sum(events) OVER (ORDER BY ms)::float8 / sum(events) OVER () AS part FROM known
)
SELECT min(ms) FILTER (WHERE part >= 0.50)::float8 AS p50_ms, min(ms) FILTER (WHERE part >= 0.95)::float8 AS p95_ms,
       min(ms) FILTER (WHERE part >= 0.99)::float8 AS p99_ms, count(*) AS batches
FROM ranked

-- name: tenant_latencies
-- Latency percentiles of each tenant's newest events of the last minutes.
SELECT t.tenant_id, t.name AS tenant, count(*) AS events, percentile_disc(0.50) WITHIN GROUP (ORDER BY d.ms) AS p50_ms,
       percentile_disc(0.95) WITHIN GROUP (ORDER BY d.ms) AS p95_ms,
       percentile_disc(0.99) WITHIN GROUP (ORDER BY d.ms) AS p99_ms
FROM control.tenants AS t
CROSS JOIN LATERAL (
    SELECT extract(epoch FROM delivered_at - received_at)::float8 * 1000 AS ms
    FROM ((SELECT received_at, delivered_at FROM analytics.events
           WHERE tenant_id = t.tenant_id AND received_at > now() - interval '5 minutes'
             AND batch_id <> ALL ((SELECT queue.imported_since(now() - interval '5 minutes'))::bigint[])
           ORDER BY received_at DESC LIMIT %(events)s)
          UNION ALL
          (SELECT received_at, delivered_at FROM shadow.events
           WHERE tenant_id = t.tenant_id AND received_at > now() - interval '5 minutes'
             AND batch_id <> ALL ((SELECT queue.imported_since(now() - interval '5 minutes'))::bigint[])
           ORDER BY received_at DESC LIMIT %(events)s)) AS newest
) AS d
WHERE t.name = ANY(%(tenants)s)
GROUP BY t.tenant_id, t.name

-- name: dead_letters
-- Unresolved dead letters of any age, grouped by fingerprint, failed part and error class.
SELECT fingerprint, failed_in, error_class, min(error) AS example, count(*) AS events,
       count(*) FILTER (WHERE state = 'exhausted') AS exhausted, count(DISTINCT tenant_id) AS tenants,
       min(created_at) AS since
FROM queue.dead_letters
WHERE state IN ('waiting', 'exhausted') AND (%(tenant_id)s::integer IS NULL OR tenant_id = %(tenant_id)s)
GROUP BY fingerprint, failed_in, error_class
ORDER BY exhausted DESC, events DESC, fingerprint
LIMIT %(limit)s

-- name: exhausted_tenants
-- Tenants with exhausted dead letters.
SELECT t.name AS tenant
FROM control.tenants AS t
WHERE EXISTS (SELECT FROM queue.dead_letters AS d WHERE d.tenant_id = t.tenant_id AND d.state = 'exhausted')
ORDER BY t.name

-- name: hours
-- The numbers of hours kept, sealed, past and unsealed, and made ahead.
SELECT count(*) FILTER (WHERE dropped_at IS NULL) AS kept,
       count(*) FILTER (WHERE sealed_at IS NOT NULL AND dropped_at IS NULL) AS sealed,
       count(*) FILTER (WHERE sealed_at IS NULL AND dropped_at IS NULL AND hour + interval '1 hour' <= clock_timestamp())
           AS unsealed_past,
       count(*) FILTER (WHERE hour > clock_timestamp()) AS ahead
FROM queue.hours

-- name: phase
-- The current phase of the cutover, and how many events wait for the mirror.
SELECT phase::text, opened_at, is_shadow, is_mirrored,
       (SELECT coalesce(sum(events), 0)::bigint FROM queue.mirror) AS mirror_waiting
FROM control.epochs ORDER BY epoch DESC LIMIT 1

-- name: circuit
-- The open circuit, if any.
SELECT message, opened_at FROM control.circuits WHERE closed_at IS NULL

-- name: replays
-- Replays with a step under way, and its progress.
SELECT r.replay_id, r.state::text, r.is_paused, r.window_start, r.window_end, r.reason, r.planned_events AS events,
       count(c.chunk) AS chunks, count(c.chunk) FILTER (WHERE c.is_done) AS chunks_done,
       extract(epoch FROM clock_timestamp() - r.step_began_at)::float8 AS seconds
FROM replay.replays AS r LEFT JOIN replay.chunks AS c USING (replay_id)
WHERE r.state IN ('diffing', 'committing', 'undoing')
GROUP BY r.replay_id ORDER BY r.replay_id

-- name: slow_alerts
-- Tenants with an open latency alert.
SELECT t.name AS tenant
FROM control.alerts AS a LEFT JOIN control.tenants AS t USING (tenant_id)
WHERE a.kind = 'latency_high' AND a.resolved_at IS NULL
ORDER BY t.name

-- name: totals
-- Totals for the charts, recorded while the page is not open.
SELECT coalesce(sum(received), 0)::bigint AS received, coalesce(sum(accepted), 0)::bigint AS accepted,
       coalesce(sum(rejected), 0)::bigint AS rejected, coalesce(sum(claimed), 0)::bigint AS claimed,
       coalesce(sum(enriched), 0)::bigint AS enriched, coalesce(sum(delivered), 0)::bigint AS delivered,
       coalesce(sum(duplicate), 0)::bigint AS duplicate, coalesce(sum(dead_lettered), 0)::bigint AS dead_lettered,
       coalesce(sum(discarded), 0)::bigint AS discarded, coalesce(sum(in_flight), 0)::bigint AS in_flight
FROM account.funnel WHERE hour >= %(since)s

-- name: legacy_totals
-- What each stage of the legacy pipeline passed on.
SELECT stage, sum(proceeded)::bigint AS proceeded FROM legacy.stage_counts WHERE hour >= %(since)s GROUP BY stage
