-- name: current
-- The epoch in force.
SELECT epoch, phase::text, opened_at, is_shadow, is_mirrored FROM control.epochs ORDER BY epoch DESC LIMIT 1

-- name: last_entry
-- The last entry of the cutover in the audit log.
SELECT actor, reason, detail FROM control.audit_log WHERE action = 'cutover' ORDER BY entry_id DESC LIMIT 1

-- name: lock
-- Takes the lock under which only one process changes the phase.
SELECT pg_advisory_xact_lock(hashtext('control.cutover'))

-- name: turn
-- Adds the next epoch. Batches that are accepted after this commit are stamped with it. Earlier batches keep their
-- stamp.
INSERT INTO control.epochs (epoch, phase)
SELECT max(epoch) + 1, %(phase)s::control.phase FROM control.epochs
RETURNING epoch

-- name: mirror
-- The state of the mirror: whether it runs, what waits, and what it lost lately.
SELECT t.forward_url,
       EXISTS (SELECT FROM pg_stat_activity
               WHERE datname = current_database() AND application_name = 'pipeline-platform mirror wake') AS runs,
       (SELECT coalesce(sum(events), 0)::bigint FROM queue.mirror) AS waiting,
       (SELECT extract(epoch FROM clock_timestamp() - min(received_at))::float8 FROM queue.mirror) AS oldest_s,
       (SELECT coalesce(sum(proceeded), 0)::bigint FROM legacy.stage_counts WHERE stage = 'mirror') AS proceeded,
       (SELECT count(*) FROM legacy.losses
        WHERE stage = 'mirror' AND lost_at > clock_timestamp() - interval '5 minutes') AS lost_lately
FROM control.legacy_target AS t

-- name: output_has_rows
-- Whether the legacy pipeline's output has any row.
SELECT EXISTS (SELECT FROM legacy.output)

-- name: windows
-- Settled comparisons since the shadow phase began, newest first, and whether the platform had parity in each.
SELECT w.window_start, w.window_end,
       coalesce(sum(r.extra + r.mismatched + greatest(r.accepted - r.platform, 0)), 0) = 0 AS has_parity
FROM reconcile.windows AS w
LEFT JOIN reconcile.results AS r USING (window_start, window_end)
WHERE w.is_settled AND w.window_end > (
    SELECT min(opened_at) FROM control.epochs
    WHERE phase = 'shadow' AND epoch > coalesce((SELECT max(epoch) FROM control.epochs WHERE phase = 'legacy_only'), 0))
GROUP BY w.window_start, w.window_end
ORDER BY w.window_end DESC, w.window_start

-- name: compared
-- What was compared in a stretch of settled windows: accepted and matched events of each tenant.
SELECT coalesce(t.name, r.tenant_id::text), sum(r.accepted)::bigint, sum(r.matched)::bigint
FROM reconcile.windows AS w
JOIN reconcile.results AS r USING (window_start, window_end)
LEFT JOIN control.tenants AS t USING (tenant_id)
WHERE w.is_settled AND w.window_start >= %(start)s AND w.window_end <= %(end)s
GROUP BY 1
ORDER BY 2 DESC, 1

-- name: unknown_rows
-- Rows of the legacy pipeline that belonged to no event in a stretch of settled windows. Rows without a time belong to
-- no window: those of the newest comparison count.
SELECT (coalesce(sum((coverage ->> 'unknown_rows')::bigint), 0)
        + coalesce((array_agg((coverage ->> 'untimed_rows')::bigint ORDER BY reconciled_at DESC))[1], 0))::bigint AS rows
FROM reconcile.windows
WHERE is_settled AND window_start >= %(start)s AND window_end <= %(end)s

-- name: shadow_since
-- When the current shadow phase began.
SELECT min(opened_at) FROM control.epochs
WHERE phase = 'shadow' AND epoch > coalesce((SELECT max(epoch) FROM control.epochs WHERE phase = 'legacy_only'), 0)

-- name: dead_letters
-- The number of unresolved dead letters, all or those created since a time.
SELECT count(*) FROM queue.dead_letters
WHERE state IN ('waiting', 'exhausted') AND (%(since)s::timestamptz IS NULL OR created_at >= %(since)s)

-- name: lag
-- The age of the oldest live work, and the 95th percentile of recent delivery latencies.
SELECT coalesce(extract(epoch FROM clock_timestamp() - (SELECT min(received_at) FROM queue.work WHERE lane = 'live')),
                0)::float8 AS oldest_s,
       (SELECT percentile_disc(0.95) WITHIN GROUP (ORDER BY extract(epoch FROM e.delivered_at - e.received_at) * 1000)
        FROM account.delivered AS e
        WHERE e.received_at > greatest(clock_timestamp() - interval '5 minutes', %(since)s)
          AND e.batch_id <> ALL ((SELECT queue.imported_since(clock_timestamp() - interval '5 minutes'))::bigint[])
       )::float8 AS p95_ms

-- name: unbalanced
-- The number of parts of the account that do not balance.
SELECT count(*) FROM account.funnel
WHERE received <> accepted + rejected
   OR accepted <> delivered + duplicate + dead_lettered + discarded + in_flight

-- name: drift
-- Events that the legacy pipeline has and the platform lacks or has differently, in windows that began after the change
-- of phase: those of a window around it may be from before.
SELECT coalesce(sum(r.extra), 0)::bigint AS extra, coalesce(sum(r.mismatched), 0)::bigint AS mismatched
FROM reconcile.windows AS w JOIN reconcile.results AS r USING (window_start, window_end)
WHERE w.is_settled AND w.window_start >= %(since)s

-- name: mirror_losses
-- The number of events that the mirror lost since a time, and that nobody acknowledged.
SELECT count(*) FROM legacy.losses WHERE stage = 'mirror' AND lost_at >= %(since)s AND acknowledged_at IS NULL

-- name: open_alert
-- Opens the alert of an anomaly in the cutover, or updates the open one.
INSERT INTO control.alerts AS a (kind, fingerprint, message, occurrences)
VALUES ('cutover_anomaly', %(name)s, %(message)s, %(events)s)
ON CONFLICT (kind, fingerprint, tenant_id) WHERE resolved_at IS NULL
DO UPDATE SET occurrences = excluded.occurrences, last_seen_at = now(), message = excluded.message

-- name: resolve_alerts
-- Resolves the alerts of anomalies that are over.
UPDATE control.alerts SET resolved_at = now()
WHERE resolved_at IS NULL AND kind = 'cutover_anomaly' AND NOT (fingerprint = ANY(%(names)s))
