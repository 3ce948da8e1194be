-- name: days
-- Days that have a partition or that have delivered events in the account. For each: whether its rows may have changed
-- since the last count, and whether events can still be delivered into it.
WITH day AS (
    SELECT to_date(right(c.relname, 8), 'YYYYMMDD')::timestamp AT TIME ZONE 'UTC' AS day
    FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
    WHERE i.inhparent IN ('analytics.events'::regclass, 'shadow.events'::regclass) AND c.relname ~ '^events_\d{8}$'
    UNION
    SELECT date_trunc('day', hour, 'UTC') FROM account.funnel WHERE delivered <> 0
)
SELECT d.day, account.changes_of_day(d.day), p.changes IS NULL OR p.changes IS DISTINCT FROM account.changes_of_day(d.day),
       d.day >= (SELECT date_trunc('day', min(opened_at) - %(retention)s::interval, 'UTC') FROM analytics.key_generations)
FROM day AS d LEFT JOIN account.production_days AS p USING (day)
ORDER BY d.day

-- name: count_day
-- Counts the rows of one day and returns differences from the account. It is one statement, so that rows and account
-- come from one snapshot. An hour that agreed with the account may differ only in its identities, without an erasure or
-- replay that explains it. Such an hour keeps its earlier identities and is reported until it is repaired.
WITH fresh AS MATERIALIZED (
    SELECT tenant_id, date_trunc('hour', received_at, 'UTC') AS hour, count(*) FILTER (WHERE NOT is_shadow) AS production,
           count(*) FILTER (WHERE is_shadow) AS shadow, bit_xor(uuid_hash_extended(event_id, tenant_id)) AS identities
    FROM account.delivered
    WHERE received_at >= %(day)s AND received_at < %(day)s + interval '24 hours'
    GROUP BY 1, 2
), counted AS (
    SELECT tenant_id, hour, sum(delivered)::bigint AS delivered
    FROM account.funnel
    WHERE hour >= %(day)s AND hour < %(day)s + interval '24 hours'
    GROUP BY 1, 2
), judged AS MATERIALIZED (
    SELECT tenant_id, hour, coalesce(f.production, 0) AS production, coalesce(f.shadow, 0) AS shadow,
           coalesce(f.identities, 0) AS identities, coalesce(c.delivered, 0) AS delivered,
           coalesce(c.delivered, 0) = coalesce(f.production + f.shadow, 0) AS agrees
    FROM fresh AS f FULL JOIN counted AS c USING (tenant_id, hour)
), exchanged AS MATERIALIZED (
    SELECT j.tenant_id, j.hour, p.identities
    FROM judged AS j JOIN account.production_hours AS p USING (hour, tenant_id)
    WHERE j.agrees AND p.agrees AND j.production + j.shadow = p.production + p.shadow AND j.identities <> p.identities
      AND NOT EXISTS (SELECT FROM control.erased_events AS x
                      WHERE x.tenant_id = j.tenant_id AND x.batch_received_at >= j.hour
                        AND x.batch_received_at < j.hour + interval '1 hour')
      AND NOT EXISTS (SELECT FROM replay.before_images AS b
                      WHERE b.tenant_id = j.tenant_id AND b.received_at >= j.hour
                        AND b.received_at < j.hour + interval '1 hour')
), gone AS (
    DELETE FROM account.production_hours AS p
    WHERE p.hour >= %(day)s AND p.hour < %(day)s + interval '24 hours'
      AND NOT EXISTS (SELECT FROM judged AS j WHERE j.tenant_id = p.tenant_id AND j.hour = p.hour)
), kept AS (
    INSERT INTO account.production_hours AS p (tenant_id, hour, production, shadow, identities, agrees)
    SELECT j.tenant_id, j.hour, j.production, j.shadow, coalesce(x.identities, j.identities), j.agrees
    FROM judged AS j LEFT JOIN exchanged AS x USING (tenant_id, hour)
    ORDER BY j.hour, j.tenant_id
    ON CONFLICT (hour, tenant_id) DO UPDATE SET
        production = excluded.production, shadow = excluded.shadow, identities = excluded.identities,
        agrees = excluded.agrees
), noted AS (
    INSERT INTO account.production_days AS p (day, changes, counted_at)
    -- A day with exchanged identities is counted again each time.
    VALUES (%(day)s, CASE WHEN EXISTS (SELECT FROM exchanged) THEN NULL ELSE %(changes)s END, clock_timestamp())
    ON CONFLICT (day) DO UPDATE SET changes = excluded.changes, counted_at = excluded.counted_at
)
SELECT CASE WHEN x.hour IS NULL THEN 'production' ELSE 'exchanged' END, j.tenant_id, j.hour, j.delivered,
       j.production + j.shadow
FROM judged AS j LEFT JOIN exchanged AS x USING (tenant_id, hour)
WHERE NOT j.agrees OR x.hour IS NOT NULL
ORDER BY j.hour, j.tenant_id

-- name: differing_days
-- Days whose earlier counts differ from the current account.
SELECT DISTINCT date_trunc('day', hour, 'UTC')
FROM (SELECT tenant_id, hour, sum(delivered) AS delivered FROM account.funnel GROUP BY 1, 2) AS c
FULL JOIN account.production_hours AS p USING (tenant_id, hour)
WHERE coalesce(c.delivered, 0) <> coalesce(p.production + p.shadow, 0)
ORDER BY 1

-- name: rows
-- The numbers of rows in production and in shadow.
SELECT coalesce(sum(production), 0)::bigint, coalesce(sum(shadow), 0)::bigint FROM account.production_hours

-- name: of_hour
-- Differences between the rows of one hour and the account, in one snapshot.
SELECT tenant_id, coalesce(c.delivered, 0), coalesce(r.rows, 0)
FROM (SELECT tenant_id, sum(delivered)::bigint AS delivered FROM account.funnel WHERE hour = %(hour)s GROUP BY 1) AS c
FULL JOIN (SELECT tenant_id, count(*) AS rows FROM account.delivered
           WHERE received_at >= %(hour)s AND received_at < %(hour)s + interval '1 hour' GROUP BY 1) AS r USING (tenant_id)
WHERE coalesce(c.delivered, 0) <> coalesce(r.rows, 0)
ORDER BY tenant_id

-- name: doubled
-- Identities with a row that was received within the retention after another row was delivered: it should have been
-- recognised as a duplicate. One day at a time is read, so that each is one scan of its partitions under any settings
-- of the planner.
WITH row AS (
    SELECT e.*
    FROM unnest(%(days)s::timestamptz[]) AS d(day)
    CROSS JOIN LATERAL (SELECT tenant_id, event_id FROM account.delivered AS own
                        WHERE own.received_at >= d.day AND own.received_at < d.day + interval '24 hours' OFFSET 0) AS e
), identity AS MATERIALIZED (
    SELECT tenant_id, event_id FROM row GROUP BY 1, 2 HAVING count(*) > 1
), found AS (
    SELECT e.tenant_id, e.event_id, e.batch_id, e.received_at,
           lag(e.delivered_at) OVER (PARTITION BY e.tenant_id, e.event_id ORDER BY e.delivered_at, e.received_at) AS before
    FROM unnest(%(days)s::timestamptz[]) AS d(day)
    CROSS JOIN LATERAL (SELECT tenant_id, event_id, batch_id, received_at, delivered_at FROM account.delivered AS own
                        WHERE own.received_at >= d.day AND own.received_at < d.day + interval '24 hours'
                          AND EXISTS (SELECT FROM identity) OFFSET 0) AS e
    JOIN identity AS i USING (tenant_id, event_id)
)
SELECT tenant_id, date_trunc('hour', received_at, 'UTC') AS hour, count(*),
       to_json((array_agg(json_build_object('event_id', event_id, 'batch_id', batch_id)
                          ORDER BY event_id, batch_id))[1:%(samples)s])
FROM found
WHERE received_at < before + %(retention)s::interval
GROUP BY 1, 2
ORDER BY 2, 1
