-- name: live
-- Both pipelines while they run: what the gateway accepted and the platform delivered, and what the legacy pipeline was
-- offered and its stages say it wrote and lost.
SELECT p.accepted, p.delivered, p.dead_lettered, l.offered, l.written, l.lost
FROM (SELECT coalesce(sum(accepted), 0)::bigint AS accepted, coalesce(sum(delivered), 0)::bigint AS delivered,
             coalesce(sum(dead_lettered + discarded), 0)::bigint AS dead_lettered
      FROM account.funnel) AS p,
     (SELECT coalesce(sum(arrived) FILTER (WHERE stage = 'mirror'), 0)::bigint AS offered,
             coalesce(sum(proceeded) FILTER (WHERE stage = 'write'), 0)::bigint AS written,
             coalesce(sum(failed), 0)::bigint AS lost
      FROM legacy.stage_counts) AS l

-- name: busy
-- What is still in progress: the platform's work, the mirror's batches, and events that the legacy pipeline took and
-- has neither written nor lost.
SELECT (SELECT count(*) FROM queue.work) AS waiting, (SELECT count(*) FROM queue.mirror) AS mirrored,
       coalesce(sum(arrived) FILTER (WHERE stage = 'mirror'), 0)::bigint
       - coalesce(sum(proceeded) FILTER (WHERE stage = 'write'), 0)::bigint - coalesce(sum(failed), 0)::bigint AS inside
FROM legacy.stage_counts

-- name: totals
-- Row counts over the whole demo. The batches of mirrored epochs are what the legacy pipeline was offered.
SELECT (SELECT coalesce(sum(events), 0)::bigint FROM queue.batches) AS accepted,
       (SELECT count(*) FROM (SELECT DISTINCT tenant_id, event_id FROM account.delivered) AS d) AS delivered,
       (SELECT coalesce(sum(events), 0)::bigint
        FROM queue.batches JOIN control.epochs USING (epoch) WHERE is_mirrored) AS legacy_accepted,
       (SELECT count(*) FROM (SELECT DISTINCT tenant_id, event_id FROM legacy.output) AS o) AS legacy_delivered

-- name: window
-- The events accepted between two moments, and how many of them each pipeline delivered.
SELECT count(*) AS accepted, count(d.event_id) AS delivered, count(o.event_id) AS legacy_delivered
FROM queue.events AS e
LEFT JOIN account.delivered AS d ON d.tenant_id = e.tenant_id AND d.event_id = e.event_id
LEFT JOIN (SELECT DISTINCT tenant_id, event_id FROM legacy.output) AS o
       ON o.tenant_id = e.tenant_id AND o.event_id = e.event_id
WHERE e.received_at >= %(begin)s AND e.received_at < %(end)s

-- name: latencies
-- Latencies in milliseconds of each pipeline for the events accepted between two moments: 40 logarithmic classes from 1
-- ms to 1,000 s, and the 95th percentile. The platform: from the commit of acceptance to the commit of delivery
-- (track_commit_timestamp). The legacy pipeline: from arrival at its gateway to its row.
WITH platform AS (
    SELECT extract(epoch FROM pg_xact_commit_timestamp(d.xmin) - pg_xact_commit_timestamp(b.xmin)) * 1000 AS ms
    FROM (SELECT xmin, batch_id, received_at FROM shadow.events
          UNION ALL SELECT xmin, batch_id, received_at FROM analytics.events) AS d
    JOIN queue.batches AS b ON b.batch_id = d.batch_id AND b.received_at = d.received_at
    WHERE b.received_at >= %(begin)s AND b.received_at < %(end)s
), old AS (
    SELECT extract(epoch FROM o.delivered_at - o.received_at) * 1000 AS ms
    FROM queue.events AS e
    JOIN legacy.output AS o ON o.tenant_id = e.tenant_id AND o.event_id = e.event_id
    WHERE e.received_at >= %(begin)s AND e.received_at < %(end)s
), both_of_them AS (
    SELECT 'platform' AS pipeline, ms FROM platform UNION ALL SELECT 'legacy', ms FROM old
)
SELECT pipeline, percentile_cont(0.95) WITHIN GROUP (ORDER BY ms)::float8 AS p95_ms,
       array_agg(width_bucket(ln(greatest(ms, 1)), 0, ln(1e6), 40)) AS classes
FROM both_of_them GROUP BY pipeline

-- name: losses
-- The stages that report the loss of events that the legacy pipeline's output lacks.
SELECT l.stage, count(DISTINCT (l.tenant_id, l.event_id)) AS events
FROM legacy.losses AS l
WHERE NOT EXISTS (SELECT FROM legacy.output AS o WHERE o.tenant_id = l.tenant_id AND o.event_id = l.event_id)
GROUP BY l.stage

-- name: dead_letters
-- Events that the platform accepted and did not deliver, by the part of processing that failed.
SELECT failed_in, count(*) AS events FROM queue.dead_letters
WHERE state IN ('waiting', 'exhausted', 'discarded') GROUP BY failed_in

-- name: rates
-- Events per second: accepted at the gateway, delivered by the platform, delivered by the legacy pipeline.
WITH moments AS (
    SELECT date_trunc('second', at) AS second, sum(accepted)::bigint AS accepted, sum(platform)::bigint AS platform,
           sum(legacy)::bigint AS legacy
    FROM (SELECT received_at AS at, events AS accepted, 0 AS platform, 0 AS legacy FROM queue.batches
          UNION ALL SELECT delivered_at, 0, 1, 0 FROM account.delivered
          UNION ALL SELECT delivered_at, 0, 0, 1 FROM legacy.output) AS each
    GROUP BY 1
)
SELECT second, coalesce(accepted, 0) AS accepted, coalesce(platform, 0) AS platform, coalesce(legacy, 0) AS legacy
FROM generate_series((SELECT min(second) FROM moments), (SELECT max(second) FROM moments), interval '1 second') AS s(second)
LEFT JOIN moments USING (second)
ORDER BY second

-- name: tenants
-- The events that each tenant sent while both pipelines ran, and how many of them each pipeline delivered.
SELECT t.name AS tenant, count(*) AS events, count(d.event_id) AS platform, count(o.event_id) AS legacy
FROM queue.batches AS b
JOIN control.epochs AS c ON c.epoch = b.epoch AND c.is_mirrored
JOIN queue.events AS e ON e.batch_id = b.batch_id AND e.batch_received_at = b.received_at
JOIN control.tenants AS t ON t.tenant_id = e.tenant_id
LEFT JOIN account.delivered AS d ON d.tenant_id = e.tenant_id AND d.event_id = e.event_id
LEFT JOIN (SELECT DISTINCT tenant_id, event_id FROM legacy.output) AS o
       ON o.tenant_id = e.tenant_id AND o.event_id = e.event_id
GROUP BY t.name ORDER BY events DESC, t.name

-- name: production
-- Accepted events that are missing in production, and those that are there more than once.
WITH found AS (SELECT tenant_id, event_id, count(*) AS copies FROM analytics.production GROUP BY tenant_id, event_id)
SELECT count(*) FILTER (WHERE f.event_id IS NULL) AS missing, count(*) FILTER (WHERE f.copies > 1) AS doubled
FROM (SELECT DISTINCT tenant_id, event_id FROM queue.events) AS e
LEFT JOIN found AS f ON f.tenant_id = e.tenant_id AND f.event_id = e.event_id
