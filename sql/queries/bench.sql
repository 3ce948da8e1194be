-- name: outcome
-- The totals of the account.
SELECT coalesce(sum(accepted), 0)::bigint, coalesce(sum(delivered), 0)::bigint, coalesce(sum(duplicate), 0)::bigint,
       coalesce(sum(dead_lettered), 0)::bigint, coalesce(sum(in_flight), 0)::bigint
FROM account.funnel

-- name: latencies
-- From the commit of acceptance to the commit of delivery, by PostgreSQL's timestamps of both (track_commit_timestamp).
SELECT count(*), percentile_cont(ARRAY[0.5, 0.95, 0.99]) WITHIN GROUP (
    ORDER BY extract(epoch FROM pg_xact_commit_timestamp(e.xmin) - pg_xact_commit_timestamp(b.xmin)) * 1000)
FROM analytics.events AS e
JOIN queue.batches AS b ON b.batch_id = e.batch_id AND b.received_at = e.received_at
WHERE e.received_at >= (SELECT min(received_at) FROM queue.batches) + make_interval(secs => %s)

-- name: delivery_span
-- Seconds from the first received_at to the last commit of delivery.
SELECT extract(epoch FROM max(pg_xact_commit_timestamp(e.xmin)) - min(e.received_at))::float8
FROM analytics.events AS e

-- name: mangle
-- Changes about a tenth of the rows, so that a replay finds them changed.
UPDATE analytics.events SET properties = jsonb_build_object('mangled', true) WHERE event_id::text < '1a'

-- name: live_p95
-- The 95th percentile of delivery latencies from a moment on, in milliseconds.
SELECT percentile_cont(0.95) WITHIN GROUP (
    ORDER BY extract(epoch FROM pg_xact_commit_timestamp(e.xmin) - pg_xact_commit_timestamp(b.xmin)) * 1000)
FROM analytics.events AS e
JOIN queue.batches AS b ON b.batch_id = e.batch_id AND b.received_at = e.received_at
WHERE e.received_at >= %s::timestamptz + make_interval(secs => %s)
