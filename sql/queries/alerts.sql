-- The conditions come first. Each returns (kind, tenant_id, fingerprint, message, occurrences, since, sample_id), one
-- row per cause. The windows of latency are the exception: latency.py judges them. The conditions run every few
-- seconds, so each reads only the recent past or an index of its own.

-- name: dead_letters
-- Condition: exhausted dead letters, by tenant and fingerprint.
SELECT 'dead_letter_exhausted', tenant_id, fingerprint,
       format('%%s dead letters were tried for the last time, at %%s: %%s', count(*), min(failed_in), min(error_class)),
       count(*), min(created_at), min(event_id::text)
FROM queue.dead_letters WHERE state = 'exhausted'
GROUP BY tenant_id, fingerprint

-- name: account
-- Condition: the account does not balance. Each delta balances by itself, so the counters that they are folded into
-- must balance.
SELECT 'account_unbalanced', tenant_id, 'account',
       format('%%s of the account''s parts do not balance, the last in the hour of %%s', count(*), max(hour)),
       count(*), min(hour), min(hour)::text
FROM account.counters
WHERE received <> accepted + rejected
   OR accepted <> delivered + duplicate + dead_lettered + discarded + in_flight
   OR least(received, accepted, rejected, claimed, enriched, delivered, duplicate, dead_lettered, discarded,
            in_flight) < 0
GROUP BY tenant_id

-- name: delivery_rate
-- Condition: the delivery rate (account/numbers.py) is below the objective. Events in flight count as failed once their
-- hour and the allowed lag are over. Replays are in a lane of their own and are left out.
WITH judged AS (
    SELECT tenant_id, min(hour) AS since, sum(delivered + duplicate) AS good,
           sum(dead_lettered + CASE WHEN hour + interval '1 hour' + make_interval(secs => %(lag_s)s) < now()
                                    THEN in_flight ELSE 0 END) AS bad
    FROM account.funnel
    WHERE hour >= date_trunc('hour', now() - make_interval(secs => %(rate_window_s)s), 'UTC') AND lane <> 'replay'
    GROUP BY tenant_id
)
SELECT 'delivery_rate_low', tenant_id, 'rate',
       format('%%s of %%s events were delivered (%%s%%%%), the objective is %%s%%%%', good, good + bad,
              round(100 * good / (good + bad), 3), %(ratio)s::numeric * 100),
       bad::bigint, since,
       (SELECT d.event_id::text FROM queue.dead_letters AS d
        WHERE d.tenant_id = judged.tenant_id AND d.state IN ('waiting', 'exhausted') LIMIT 1)
FROM judged
WHERE good + bad >= %(events_min)s AND good < %(ratio)s::numeric * (good + bad)

-- name: queue
-- Condition: the queue has stopped (no event is processed), or else it lags. An open circuit has its own alert.
-- Imported batches are left out, because they are old by nature.
WITH waiting AS MATERIALIZED (
    SELECT lane, min(received_at) AS oldest_at, sum(end_event - first_event)::bigint AS events, min(batch_id) AS batch_id
    FROM queue.work AS w
    WHERE lane IN ('live', 'overflow')
      AND NOT EXISTS (SELECT FROM control.import_chunks AS c WHERE c.batch_id = w.batch_id)
    GROUP BY lane
), last_seen AS (
    INSERT INTO control.alert_progress AS m (name, value)
    SELECT 'claimed', coalesce((SELECT sum(claimed) FROM account.counters WHERE hour >= (
                                    SELECT min(hour) FROM queue.hours WHERE dropped_at IS NULL)), 0)
                      + coalesce((SELECT sum(claimed) FROM account.deltas), 0)
    ON CONFLICT (name) DO UPDATE SET value = excluded.value,
        since = CASE WHEN m.value = excluded.value THEN m.since ELSE clock_timestamp() END
    RETURNING since
), judged AS (
    -- A received_at ahead of the clock does not tell how long the work has waited.
    SELECT w.*, m.since, greatest(m.since, CASE WHEN w.oldest_at <= now() THEN w.oldest_at END)
                         + make_interval(secs => %(stopped_s)s) < now() AS is_stopped
    FROM waiting AS w CROSS JOIN last_seen AS m
    WHERE NOT EXISTS (SELECT FROM control.circuits WHERE closed_at IS NULL)
)
SELECT CASE WHEN is_stopped THEN 'queue_stopped' ELSE 'lag_high' END, NULL::integer, lane::text,
       CASE WHEN is_stopped
            THEN format('%%s events wait in lane %%s and none was processed since %%s', events, lane, since)
            ELSE format('the oldest of %%s events in lane %%s waits since %%s', events, lane, oldest_at) END,
       events, CASE WHEN is_stopped THEN greatest(since, least(oldest_at, now())) ELSE oldest_at END, 'batch ' || batch_id
FROM judged
WHERE is_stopped OR oldest_at + make_interval(secs => %(lag_s)s) < now()

-- name: latency_tenants
-- Tenants with recent deliveries, whose latency windows are read.
SELECT DISTINCT tenant_id FROM account.funnel
WHERE hour >= date_trunc('hour', %(since)s::timestamptz, 'UTC') AND delivered > 0
ORDER BY tenant_id

-- name: latency_window
-- The latency of each tenant in one window, and of all of them together (tenant_id NULL).
SELECT e.tenant_id, %(start)s::timestamptz AS since, count(*) AS events,
       percentile_disc(0.95) WITHIN GROUP (ORDER BY e.ms) AS p95_ms, max(e.ms) AS worst_ms,
       min(e.event_id::text) FILTER (WHERE e.ms > %(p95_ms)s) AS sample_id
FROM unnest(%(tenants)s::integer[]) AS r(tenant_id) CROSS JOIN LATERAL (
    SELECT d.tenant_id, d.event_id, extract(epoch FROM d.delivered_at - d.received_at)::float8 * 1000 AS ms
    FROM account.delivered AS d
    WHERE d.tenant_id = r.tenant_id AND d.received_at > %(start)s AND d.received_at <= %(end)s
      AND d.batch_id <> ALL ((SELECT queue.imported_since(%(start)s))::bigint[])
    OFFSET 0) AS e
GROUP BY GROUPING SETS ((e.tenant_id), ())
HAVING count(*) >= %(events_min)s

-- name: drift
-- Condition: the outputs differ while the legacy pipeline runs beside the platform. Many tenants at once have one cause:
-- they are one condition.
WITH drift AS (
    SELECT r.tenant_id, sum(r.missing) AS missing, sum(r.extra) AS extra, sum(r.mismatched) AS mismatched,
           min(w.window_start) AS since
    FROM reconcile.results AS r JOIN reconcile.windows AS w USING (window_start, window_end)
    WHERE r.missing + r.extra + r.mismatched > 0 AND w.is_settled
      AND (SELECT phase FROM control.epochs ORDER BY epoch DESC LIMIT 1) <> 'legacy_off'
    GROUP BY r.tenant_id
), counted AS (
    SELECT CASE WHEN (SELECT count(*) FROM drift) <= 5 THEN tenant_id END AS tenant_id, count(*) AS tenants,
           sum(missing) AS missing, sum(extra) AS extra, sum(mismatched) AS mismatched, min(since) AS since
    FROM drift GROUP BY 1
)
SELECT 'drift_found', c.tenant_id, 'drift',
       format('%%s events missing, %%s extra, %%s with other content', missing, extra, mismatched)
       || CASE WHEN c.tenant_id IS NULL THEN format(', of %%s tenants', tenants) ELSE '' END,
       (missing + extra + mismatched)::bigint, since,
       (SELECT d.event_id::text FROM reconcile.differences AS d
        WHERE d.tenant_id = coalesce(c.tenant_id, d.tenant_id) AND d.kind IN ('missing', 'extra', 'mismatched')
        ORDER BY d.window_start DESC LIMIT 1)
FROM counted AS c

-- name: transactions
-- Condition: a transaction is open for too long.
WITH open_ones AS (
    SELECT coalesce(nullif(application_name, ''), usename::text, 'somebody') AS who, xact_start AS since, pid::text AS id
    FROM pg_stat_activity WHERE backend_type = 'client backend' AND datname = current_database()
    UNION ALL
    SELECT owner::text, prepared, 'prepared ' || gid FROM pg_prepared_xacts WHERE database = current_database()
), old AS (
    SELECT *, count(*) OVER () AS n FROM open_ones WHERE since < now() - make_interval(secs => %(transaction_age_s)s)
)
SELECT 'transaction_old', NULL::integer, 'oldest',
       format('%%s (process %%s) has been in one transaction since %%s', who, id, since), n, since, id
FROM old ORDER BY since LIMIT 1

-- name: partitions
-- Condition: too few partitions are made ahead. An installation without any hour is left out.
SELECT 'partitions_low', NULL::integer, 'hours', format('%%s hours have their partition made ahead', ahead), ahead,
       NULL::timestamptz, max_hour::text
FROM (SELECT count(*) FILTER (WHERE hour > now() AND dropped_at IS NULL) AS ahead, max(hour) AS max_hour
      FROM queue.hours) AS made
WHERE max_hour IS NOT NULL AND ahead < %(hours_ahead_min)s

-- name: sensors
-- Condition: a Dagster sensor is silent or failed. If the reporting sensor is silent, the others are unknown, so there
-- is only one alert. A schedule has no interval: it can fail, but its due time is not known here.
WITH ticks AS (
    SELECT *, name = %(reporter)s AS is_reporter,
           CASE WHEN name = %(reporter)s THEN reported_at ELSE ticked_at END
               + make_interval(secs => greatest(%(silent_s)s, 3 * interval_s)) < now() AS is_silent
    FROM control.sensor_ticks
)
SELECT 'sensor_silent', NULL::integer, name,
       CASE WHEN is_reporter THEN format('Dagster''s sensors do not tick: %%s last did at %%s', name, reported_at)
            ELSE format('sensor %%s should tick every %%s s', name, interval_s) END,
       1::bigint, CASE WHEN is_reporter THEN reported_at ELSE ticked_at END, name
FROM ticks
WHERE is_silent AND (is_reporter OR interval_s IS NOT NULL AND NOT EXISTS (SELECT FROM ticks AS r WHERE r.is_reporter AND r.is_silent))
UNION ALL
SELECT 'sensor_failed', NULL::integer, name, format('%%s failed: %%s', name, error), 1, ticked_at, name
FROM ticks WHERE error IS NOT NULL

-- name: replay_holds_hours
-- Condition: the diff of a replay keeps hours past their retention.
SELECT 'replay_holds_hours', NULL::integer, r.replay_id::text,
       format('the diff of replay %%s%%s keeps %%s hours past their retention, the first of %%s', r.replay_id,
              CASE WHEN r.is_paused THEN ', which is paused,' ELSE '' END, count(*), min(h.hour)),
       count(*), min(h.sealed_at + %(retention)s::interval), min(h.hour)::text
FROM replay.replays AS r
CROSS JOIN LATERAL (SELECT DISTINCT hour FROM replay.chunks AS c WHERE c.replay_id = r.replay_id) AS own
JOIN queue.hours AS h USING (hour)
WHERE r.state IN ('diffing', 'diffed', 'committing') AND r.pruned_at IS NULL
  AND h.dropped_at IS NULL AND h.sealed_at + %(retention)s::interval < now()
GROUP BY r.replay_id

-- name: channels
-- Condition: an alert channel has failed for too long.
SELECT 'channel_down', NULL::integer, channel, format('%%s sends failed, the last: %%s', failures, last_error),
       failures::bigint, failing_since, channel
FROM control.alert_channels
WHERE failing_since < now() - make_interval(secs => %(channel_down_s)s)

-- name: clock_steps
-- Condition: the database's clock was stepped. Ages are wrong while the newest events lie ahead of the clock, and for
-- an hour after a step. A pause of all keepers that is longer than the retention looks the same as a step.
WITH last_step AS (
    SELECT * FROM queue.clock_steps ORDER BY step_id DESC LIMIT 1
), ahead AS (
    SELECT max(hour) AS hour FROM account.funnel WHERE hour > now() AND received > 0
)
SELECT 'clock_stepped', NULL::integer, 'clock',
       concat_ws('; ',
           CASE WHEN s.is_proved THEN format('the database''s clock moved by %%s at %%s', s.moved, s.noted_at)
                WHEN s.step_id IS NOT NULL
                THEN format('no keeper ran for %%s until %%s, or the database''s clock was stepped', s.moved, s.noted_at) END,
           CASE WHEN a.hour IS NOT NULL
                THEN format('events are counted in the hour of %%s, which lies ahead of the clock', a.hour) END),
       1::bigint, NULL::timestamptz, coalesce(s.noted_at, a.hour)::text
FROM ahead AS a
LEFT JOIN last_step AS s ON abs(extract(epoch FROM now() - s.noted_at)) < 3600
                        AND (s.is_proved OR s.moved > %(retention)s::interval)
WHERE s.step_id IS NOT NULL OR a.hour IS NOT NULL

-- name: chores
-- Condition: a chore is late. If all chores are late, no keeper runs, and there is only one alert. The deadline also
-- counts from the start of this connection, because everything may have just been started.
WITH judged AS (
    SELECT *, due_at < now() AS is_late, max(due_at) OVER () < now() AS are_all_late
    FROM (SELECT c.*, greatest(coalesce(done_at, failing_since), a.backend_start) + late_after AS due_at
          FROM queue.chores AS c CROSS JOIN pg_stat_activity AS a WHERE a.pid = pg_backend_pid()) AS timed
), late AS (
    SELECT *, CASE WHEN are_all_late THEN 'keeper' ELSE name END AS who, coalesce(done_at, failing_since) AS since
    FROM judged WHERE is_late
)
SELECT 'chore_late', NULL::integer, who,
       CASE WHEN bool_or(are_all_late) THEN format('no keeper has done any chore since %%s', max(since))
            ELSE format('%%s was not done since %%s: %%s', who, max(since), coalesce(max(last_error), 'it was not tried'))
       END,
       count(*), min(since), min(name)
FROM late GROUP BY who

-- name: worker_deaths
-- Condition: worker processes crash repeatedly.
SELECT 'workers_crashing', NULL::integer, 'workers',
       format('%%s worker processes ended by themselves within ten minutes, the last with status %%s', count(*),
              (array_agg(status ORDER BY died_at DESC))[1]),
       count(*), min(died_at), max(died_at)::text
FROM queue.worker_deaths
WHERE died_at BETWEEN now() - interval '10 minutes' AND now() + interval '10 minutes'
HAVING count(*) >= 5

-- name: overdue_hours
-- Condition: an hour is not sealed soon after its end, or not dropped soon after its retention. A drop has a day's
-- grace, because work that waits out an outage keeps its hour. If no keeper runs, `chore_late` reports it. This
-- condition judges what a running keeper left undone.
WITH tried AS (
    SELECT coalesce(max(done_at) FILTER (WHERE name = 'seal_hours'), now()) AS seals_at,
           coalesce(max(done_at) FILTER (WHERE name = 'drop_hours'), now()) AS drops_at
    FROM queue.chores
), unsealed AS (
    SELECT hour, hour + interval '1 hour' AS due_at,
           coalesce((SELECT format('%%s (process %%s) may still write into it', coalesce(nullif(a.application_name, ''),
                                   a.usename::text, 'somebody'), l.pid)
                     FROM pg_locks AS l LEFT JOIN pg_stat_activity AS a USING (pid)
                     WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
                       AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
                       AND l.classid::bigint << 32 | l.objid::bigint = queue.hour_lock(hour) LIMIT 1),
                    'nobody writes into it now') AS why
    FROM queue.hours
    WHERE sealed_at IS NULL AND dropped_at IS NULL AND hour + interval '2 hours' < (SELECT seals_at FROM tried)
), undropped AS (
    SELECT hour, sealed_at + %(retention)s::interval AS due_at,
           coalesce('it ' || queue.why_kept(hour, %(retention)s::interval),
                    CASE WHEN %(archived_only)s AND NOT queue.is_archived(hour) THEN 'it is not archived' END,
                    'somebody reads the queue for long') AS why
    FROM queue.hours
    WHERE dropped_at IS NULL
      AND sealed_at + %(retention)s::interval + queue.unwatched_since(sealed_at) + interval '1 day'
          < (SELECT drops_at FROM tried)
)
SELECT 'hours_overdue', NULL::integer, state,
       format('%%s hours should have been %%s, the oldest, %%s, since %%s: %%s', count(*), state, min(hour), min(due_at),
              (array_agg(why ORDER BY hour))[1]),
       count(*), min(due_at), min(hour)::text
FROM (SELECT 'sealed' AS state, * FROM unsealed UNION ALL SELECT 'dropped', * FROM undropped) AS overdue
GROUP BY state
-- name: rejected
-- Condition: too large a part of a tenant's events is rejected.
SELECT 'rejected_high', tenant_id, 'rejected',
       format('%%s of %%s events were rejected (%%s%%%%), %%s%%%% is the limit', sum(rejected), sum(received),
              round(100 * sum(rejected) / sum(received), 1), %(rejected_ratio)s::numeric * 100),
       sum(rejected)::bigint, min(hour),
       (SELECT 'quarantined event ' || max(quarantine_id) FROM queue.quarantine AS q WHERE q.tenant_id = f.tenant_id)
FROM account.funnel AS f
WHERE hour >= date_trunc('hour', now() - make_interval(secs => %(rate_window_s)s), 'UTC') AND lane <> 'replay'
GROUP BY tenant_id
HAVING sum(received) >= %(events_min)s AND sum(rejected) >= %(rejected_ratio)s::numeric * sum(received)

-- name: mirror_lag
-- Condition: the mirror lags. It is judged in any phase, because batches that wait for the mirror keep their hours.
SELECT 'mirror_lag_high', NULL::integer, 'mirror',
       format('the oldest of %%s events for the old pipeline waits since %%s', sum(events), min(received_at)),
       sum(events)::bigint, min(received_at), 'batch ' || min(batch_id)
FROM queue.mirror
HAVING min(received_at) + make_interval(secs => %(mirror_lag_s)s) < now()

-- name: apply
-- Opens an alert for each finding or updates the open one. Resolves alerts of the same kinds that were not found for a
-- while. If another process looked later, its newer findings stay.
WITH found AS MATERIALIZED (
    SELECT * FROM unnest(%(kind)s::text[], %(tenant_id)s::integer[], %(fingerprint)s::text[], %(message)s::text[],
                         %(occurrences)s::bigint[], %(since)s::timestamptz[], %(sample_id)s::text[])
        AS f(kind, tenant_id, fingerprint, message, occurrences, since, sample_id)
), seen AS (
    UPDATE control.alerts AS a
    SET occurrences = f.occurrences, last_seen_at = clock_timestamp(), message = f.message, sample_id = f.sample_id
    FROM found AS f
    WHERE a.resolved_at IS NULL AND a.kind = f.kind AND a.fingerprint = f.fingerprint
      AND a.tenant_id IS NOT DISTINCT FROM f.tenant_id
    RETURNING a.kind, a.fingerprint, a.tenant_id
), opened AS (
    INSERT INTO control.alerts (kind, fingerprint, tenant_id, message, occurrences, opened_at, last_seen_at, sample_id)
    SELECT kind, fingerprint, tenant_id, message, occurrences, coalesce(since, clock_timestamp()), clock_timestamp(),
           sample_id
    FROM found AS f
    WHERE NOT EXISTS (SELECT FROM seen AS s WHERE s.kind = f.kind AND s.fingerprint = f.fingerprint
                                              AND s.tenant_id IS NOT DISTINCT FROM f.tenant_id)
    -- A concurrent look has opened it.
    ON CONFLICT DO NOTHING
)
UPDATE control.alerts AS a SET resolved_at = clock_timestamp()
WHERE a.resolved_at IS NULL AND a.kind = ANY(%(judged)s)
  AND a.last_seen_at + make_interval(secs => %(quiet_s)s) < %(looked_at)s
  AND NOT EXISTS (SELECT FROM found AS f WHERE f.kind = a.kind AND f.fingerprint = a.fingerprint
                                           AND f.tenant_id IS NOT DISTINCT FROM a.tenant_id)

-- name: clock
-- The database's clock.
SELECT clock_timestamp()

-- name: deliver_alone
-- Tries to take the lock under which only one process delivers notifications.
SELECT pg_try_advisory_lock(hashtext('control.alerts'))

-- name: forget_channels
-- Deletes channels that are not configured any more.
DELETE FROM control.alert_channels WHERE NOT (channel = ANY(%(channels)s))

-- name: address
-- Creates one delivery for each channel and notification. A new channel gets all open alerts.
WITH added AS (
    INSERT INTO control.alert_channels (channel) SELECT unnest(%(channels)s::text[]) ON CONFLICT DO NOTHING
    RETURNING channel
), fresh AS (
    UPDATE control.alert_notifications SET is_addressed = true WHERE NOT is_addressed RETURNING notification_id
)
INSERT INTO control.alert_deliveries (channel, notification_id)
SELECT channel, notification_id FROM unnest(%(channels)s::text[]) AS channel CROSS JOIN fresh
UNION ALL
SELECT added.channel, n.notification_id
FROM added CROSS JOIN control.alert_notifications AS n JOIN control.alerts AS a USING (alert_id)
WHERE n.is_addressed AND n.change = 'opened' AND a.resolved_at IS NULL

-- name: due
-- Channels that have deliveries to send and whose next send is due.
SELECT channel FROM control.alert_channels AS c
WHERE channel = ANY(%(channels)s) AND next_send_at <= clock_timestamp()
  AND EXISTS (SELECT FROM control.alert_deliveries AS d WHERE d.channel = c.channel AND d.sent_at IS NULL)

-- name: to_send
-- The unsent notifications of one channel.
SELECT n.notification_id, n.change, a.alert_id, a.kind, a.fingerprint, t.name AS tenant, a.message, a.occurrences,
       a.opened_at, a.resolved_at, a.sample_id
FROM control.alert_deliveries AS d
JOIN control.alert_notifications AS n USING (notification_id)
JOIN control.alerts AS a USING (alert_id)
LEFT JOIN control.tenants AS t USING (tenant_id)
WHERE d.channel = %(channel)s AND d.sent_at IS NULL
ORDER BY n.notification_id
LIMIT 1000

-- name: sent
-- Records deliveries as sent and resets the channel's failures.
WITH done AS (
    UPDATE control.alert_deliveries SET sent_at = clock_timestamp()
    WHERE channel = %(channel)s AND notification_id = ANY(%(ids)s)
)
UPDATE control.alert_channels SET failures = 0, failing_since = NULL, last_error = NULL, sent_at = clock_timestamp()
WHERE channel = %(channel)s

-- name: failed
-- Counts a failed send of a channel and schedules the next one with exponential backoff.
UPDATE control.alert_channels SET
    failures = failures + 1, failing_since = coalesce(failing_since, clock_timestamp()), last_error = %(error)s,
    next_send_at = clock_timestamp() + make_interval(secs => least(%(wait_max_s)s, %(wait_s)s * 2 ^ least(failures, 20)))
WHERE channel = %(channel)s

-- name: prune
-- Deletes old notifications. The alerts stay.
DELETE FROM control.alert_notifications AS n
WHERE n.is_addressed AND n.noted_at < now() - interval '30 days'
  AND NOT EXISTS (SELECT FROM control.alert_deliveries AS d
                  WHERE d.notification_id = n.notification_id AND d.sent_at IS NULL)

-- name: was_away
-- Records an outage of PostgreSQL itself. The alert is opened and resolved at once, and some channels have been told
-- already.
WITH noted AS (
    INSERT INTO control.alerts (kind, fingerprint, message, opened_at) VALUES (%(kind)s, %(kind)s, %(message)s, %(since)s)
    RETURNING alert_id
)
SELECT alert_id FROM noted

-- name: told
-- Resolves the alert of an outage and records which channels have been told already.
WITH opened AS (
    UPDATE control.alert_notifications SET is_addressed = true WHERE alert_id = %(alert_id)s RETURNING notification_id
), resolved AS (
    UPDATE control.alerts SET resolved_at = clock_timestamp() WHERE alert_id = %(alert_id)s
)
INSERT INTO control.alert_deliveries (channel, notification_id, sent_at)
SELECT c.channel, o.notification_id, CASE WHEN c.channel = ANY(%(told)s) THEN clock_timestamp() END
FROM control.alert_channels AS c CROSS JOIN opened AS o

-- name: list
-- Alerts for the list, open ones first.
SELECT a.alert_id, a.kind, t.name AS tenant, a.fingerprint, a.message, a.occurrences, a.opened_at, a.last_seen_at,
       a.resolved_at, a.sample_id
FROM control.alerts AS a LEFT JOIN control.tenants AS t USING (tenant_id)
WHERE (%(all)s OR a.resolved_at IS NULL)
  AND (%(alert_id)s::bigint IS NULL OR a.alert_id = %(alert_id)s)
  AND (%(kind)s::text IS NULL OR a.kind = %(kind)s)
  AND (%(tenant)s::text IS NULL OR t.name = %(tenant)s)
ORDER BY a.resolved_at IS NOT NULL, a.opened_at DESC, a.alert_id
LIMIT %(limit)s

-- name: deliveries
-- The deliveries of one alert, by notification and channel.
SELECT d.channel, n.change, n.noted_at, d.sent_at, c.last_error
FROM control.alert_notifications AS n
JOIN control.alert_deliveries AS d USING (notification_id)
JOIN control.alert_channels AS c USING (channel)
WHERE n.alert_id = %(alert_id)s
ORDER BY n.notification_id, d.channel

-- name: resolve
-- Resolves one alert by its id.
UPDATE control.alerts SET resolved_at = clock_timestamp()
WHERE alert_id = %(alert_id)s AND resolved_at IS NULL RETURNING kind

-- name: report_ticks
-- Replaces all known ticks of Dagster's sensors and schedules.
WITH gone AS (DELETE FROM control.sensor_ticks WHERE NOT (name = ANY(%(name)s)))
INSERT INTO control.sensor_ticks (name, interval_s, ticked_at, error, reported_at)
SELECT name, interval_s, ticked_at, error, clock_timestamp()
FROM unnest(%(name)s::text[], %(interval_s)s::float8[], %(ticked_at)s::timestamptz[], %(error)s::text[])
    AS t(name, interval_s, ticked_at, error)
ON CONFLICT (name) DO UPDATE SET interval_s = excluded.interval_s, ticked_at = excluded.ticked_at,
    error = excluded.error, reported_at = excluded.reported_at

-- name: run_failed
-- Opens the alert of a failed Dagster run, or counts the failure in the open one.
INSERT INTO control.alerts AS a (kind, fingerprint, message, occurrences, opened_at, sample_id)
VALUES ('dagster_run_failed', %(fingerprint)s, %(message)s, %(runs)s, %(since)s, %(run_id)s)
ON CONFLICT (kind, fingerprint, tenant_id) WHERE resolved_at IS NULL
DO UPDATE SET occurrences = a.occurrences + excluded.occurrences, last_seen_at = clock_timestamp(),
    message = excluded.message, sample_id = excluded.sample_id

-- name: open_run_failures
-- The open alerts of failed Dagster runs.
SELECT alert_id, fingerprint, opened_at FROM control.alerts
WHERE kind = 'dagster_run_failed' AND resolved_at IS NULL

-- name: runs_succeeded
-- Resolves alerts of Dagster runs that have succeeded since.
UPDATE control.alerts SET resolved_at = clock_timestamp() WHERE alert_id = ANY(%(alert_ids)s) AND resolved_at IS NULL

-- name: runs_stuck
-- Opens alerts of stuck Dagster runs, updates those that are open, and resolves those that are no longer found.
WITH found AS (
    SELECT * FROM unnest(%(fingerprints)s::text[], %(messages)s::text[], %(runs)s::bigint[], %(since)s::timestamptz[],
                         %(samples)s::text[]) AS f (fingerprint, message, runs, since, sample)
), over AS (
    UPDATE control.alerts SET resolved_at = clock_timestamp()
    WHERE kind = 'dagster_stuck' AND resolved_at IS NULL AND fingerprint <> ALL(%(fingerprints)s::text[])
)
INSERT INTO control.alerts AS a (kind, fingerprint, message, occurrences, opened_at, sample_id)
SELECT 'dagster_stuck', fingerprint, message, runs, since, sample FROM found
ON CONFLICT (kind, fingerprint, tenant_id) WHERE resolved_at IS NULL
DO UPDATE SET occurrences = excluded.occurrences, last_seen_at = clock_timestamp(), message = excluded.message,
    sample_id = excluded.sample_id

-- name: objectives
-- Deliveries by window and tenant, and by window over all tenants (tenant NULL). Not judged: events in flight within
-- the allowed lag, and events discarded by an operator or an erasure.
WITH part AS (
    SELECT tenant_id, hour, lane, delivered, duplicate, dead_lettered, in_flight FROM account.counters
    UNION ALL
    SELECT tenant_id, hour, lane, delivered, duplicate, dead_lettered, in_flight FROM account.deltas
)
SELECT w.hours, t.name AS tenant, coalesce(sum(f.delivered + f.duplicate), 0)::bigint AS delivered,
       coalesce(sum(f.dead_lettered), 0)::bigint AS dead_lettered,
       coalesce(sum(CASE WHEN f.hour + interval '1 hour' + make_interval(secs => %(lag_s)s) < now()
                         THEN f.in_flight END), 0)::bigint AS overdue
FROM unnest(%(windows)s::integer[]) AS w(hours)
JOIN part AS f ON f.hour >= date_trunc('hour', now() - make_interval(hours => w.hours), 'UTC') AND f.lane <> 'replay'
JOIN control.tenants AS t USING (tenant_id)
GROUP BY GROUPING SETS ((w.hours, t.name), (w.hours))
ORDER BY w.hours, t.name NULLS FIRST

-- name: lag_now
-- The age of the oldest work in seconds. Imports are left out.
SELECT coalesce(extract(epoch FROM clock_timestamp() - min(w.received_at)), 0)::float8
FROM queue.work AS w
WHERE lane IN ('live', 'overflow')
  AND NOT EXISTS (SELECT FROM control.import_chunks AS c WHERE c.batch_id = w.batch_id)

-- name: latency_now
-- The 95th percentile of recent delivery latencies in milliseconds. Imports are left out.
WITH recent AS MATERIALIZED (
    SELECT DISTINCT tenant_id FROM account.funnel
    WHERE hour >= date_trunc('hour', now() - make_interval(secs => %(latency_window_s)s), 'UTC') AND delivered > 0
)
SELECT percentile_disc(0.95) WITHIN GROUP (ORDER BY e.ms)
FROM recent AS r CROSS JOIN LATERAL (
    SELECT extract(epoch FROM d.delivered_at - d.received_at)::float8 * 1000 AS ms
    FROM account.delivered AS d
    WHERE d.tenant_id = r.tenant_id AND d.received_at > now() - make_interval(secs => %(latency_window_s)s)
      AND d.batch_id <> ALL ((SELECT queue.imported_since(now() - make_interval(secs => %(latency_window_s)s)))::bigint[])
    OFFSET 0) AS e
