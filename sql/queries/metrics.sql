-- name: totals
-- The running totals of each tenant.
SELECT t.name, coalesce(r.received, 0), coalesce(r.accepted, 0), coalesce(r.rejected, 0), coalesce(r.claimed, 0),
       coalesce(r.enriched, 0), coalesce(r.delivered, 0), coalesce(r.duplicate, 0), coalesce(r.dead_lettered, 0),
       coalesce(r.discarded, 0), coalesce(r.in_flight, 0)
FROM control.tenants AS t LEFT JOIN account.running_totals AS r USING (tenant_id)

-- name: latency
-- The latency histogram by lane.
SELECT lane::text, bucket, events, seconds FROM account.latency

-- name: queue
-- Work, events, the oldest age and suspects by lane.
SELECT l.lane::text, count(w.work_id), coalesce(sum(w.end_event - w.first_event), 0)::bigint,
       coalesce(extract(epoch FROM clock_timestamp() - min(w.received_at)), 0)::float8,
       count(*) FILTER (WHERE w.deaths > 0)
FROM unnest(enum_range(NULL::queue.lane)) AS l(lane) LEFT JOIN queue.work AS w USING (lane)
GROUP BY l.lane

-- name: dead_letters
-- Unresolved dead letters by tenant. Each state is read from its own partial index.
SELECT t.name, found.state, found.events
FROM (SELECT tenant_id, 'waiting' AS state, count(*) AS events FROM queue.dead_letters
      WHERE state = 'waiting' AND next_attempt_at IS NOT NULL GROUP BY tenant_id
      UNION ALL
      SELECT tenant_id, 'exhausted', count(*) FROM queue.dead_letters WHERE state = 'exhausted' GROUP BY tenant_id
) AS found JOIN control.tenants AS t USING (tenant_id)

-- name: unbalanced
-- The number of parts of the account that do not balance. It uses now(), because the planner cannot use
-- clock_timestamp() to choose the hours to read.
SELECT count(*) FROM account.funnel
WHERE hour >= date_trunc('hour', now(), 'UTC') - %(retention)s::interval
  AND (received <> accepted + rejected
       OR accepted <> delivered + duplicate + dead_lettered + discarded + in_flight)

-- name: hours
-- The numbers of hours made ahead, kept, sealed, and past and unsealed.
SELECT count(*) FILTER (WHERE hour > clock_timestamp()), count(*) FILTER (WHERE hour <= clock_timestamp()),
       count(*) FILTER (WHERE sealed_at IS NOT NULL),
       count(*) FILTER (WHERE sealed_at IS NULL AND hour + interval '1 hour' <= clock_timestamp())
FROM queue.hours WHERE dropped_at IS NULL

-- name: server
-- The size of the database, the age of the oldest transaction, the newest migration and the number of open circuits.
SELECT pg_database_size(current_database()),
       (SELECT coalesce(extract(epoch FROM max(clock_timestamp() - xact_start)), 0)::float8 FROM pg_stat_activity
        WHERE backend_type = 'client backend' AND datname = current_database() AND pid <> pg_backend_pid()),
       (SELECT max(name) FROM public.pipeline_migrations),
       (SELECT count(*) FROM control.circuits WHERE closed_at IS NULL)

-- name: alerts
-- The number of open alerts by kind.
SELECT kind, count(*) FROM control.alerts WHERE resolved_at IS NULL GROUP BY kind

-- name: cutover
-- All phases, which of them is in force, and the newest epoch.
SELECT phase::text, (SELECT max(epoch) FROM control.epochs),
       phase = (SELECT phase FROM control.epochs ORDER BY epoch DESC LIMIT 1)
FROM unnest(enum_range(NULL::control.phase)) AS phase

-- name: drift
-- The differences in settled windows within the retention.
SELECT coalesce(sum(r.missing), 0)::bigint, coalesce(sum(r.extra), 0)::bigint, coalesce(sum(r.mismatched), 0)::bigint
FROM reconcile.windows AS w JOIN reconcile.results AS r USING (window_start, window_end)
WHERE w.is_settled AND w.window_end > clock_timestamp() - %(retention)s::interval

-- name: mirror
-- The events that wait for the mirror, and the age of the oldest.
SELECT coalesce(sum(events), 0)::bigint,
       coalesce(extract(epoch FROM clock_timestamp() - min(received_at)), 0)::float8
FROM queue.mirror

-- name: legacy_pipeline
-- What the stages of the legacy pipeline counted.
SELECT stage, sum(arrived)::bigint, sum(proceeded)::bigint, sum(failed)::bigint FROM legacy.stage_counts GROUP BY stage

-- name: replays
-- Unfinished replays by state, with their planned events and those done.
SELECT r.state::text, count(*), sum(r.planned_events) FILTER (WHERE r.state IN ('diffing', 'committing', 'undoing'))::bigint,
       sum((SELECT sum(c.events) FROM replay.chunks AS c WHERE c.replay_id = r.replay_id AND c.is_done))
           FILTER (WHERE r.state IN ('diffing', 'committing', 'undoing'))::bigint
FROM replay.replays AS r
WHERE r.state NOT IN ('committed', 'undone', 'cancelled')
GROUP BY r.state
