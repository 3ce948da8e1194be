-- name: queue
-- The waiting work and the number of suspects.
SELECT count(*) AS waiting_work, coalesce(sum(end_event - first_event), 0)::bigint AS waiting_events,
       min(received_at) AS oldest_received_at, count(*) FILTER (WHERE deaths > 0) AS suspects
FROM queue.work

-- name: hours
-- The numbers of hours kept, sealed, past and unsealed, and made ahead.
SELECT count(*) FILTER (WHERE dropped_at IS NULL) AS kept,
       count(*) FILTER (WHERE sealed_at IS NOT NULL AND dropped_at IS NULL) AS sealed,
       count(*) FILTER (WHERE sealed_at IS NULL AND dropped_at IS NULL AND hour + interval '1 hour' <= clock_timestamp())
           AS unsealed_past,
       count(*) FILTER (WHERE hour > clock_timestamp()) AS ahead
FROM queue.hours

-- name: dead_letters
-- The numbers of unresolved dead letters.
SELECT count(*) FILTER (WHERE state = 'waiting') AS waiting, count(*) FILTER (WHERE state = 'exhausted') AS exhausted
FROM queue.dead_letters

-- name: alerts
-- The open alerts.
SELECT kind, fingerprint, message, occurrences, opened_at FROM control.alerts
WHERE resolved_at IS NULL ORDER BY opened_at

-- name: oldest_transaction
-- The age of the oldest open transaction in seconds.
SELECT coalesce(extract(epoch FROM max(clock_timestamp() - xact_start)), 0)::float8 AS age_s
FROM pg_stat_activity WHERE backend_type = 'client backend' AND datname = current_database()
