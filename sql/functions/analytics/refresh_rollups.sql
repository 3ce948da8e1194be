-- Counts the cells of up to `most` marked hours of tenants again, the longest marked first. Returns their number, or
-- NULL if another process is doing it. Only one process does it at a time, so that no older count is written over a
-- newer one. Each statement has its own snapshot, so the rows are read after their marks were deleted. Changes whose
-- marks were deleted are therefore seen.
CREATE OR REPLACE FUNCTION analytics.refresh_rollups(most integer) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    tenants integer[];
    hours timestamptz[];
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'roll-ups are refreshed in read committed transactions only'
            USING ERRCODE = 'invalid_transaction_state';
    END IF;
    IF NOT pg_try_advisory_xact_lock(hashtext('analytics.refresh_rollups')) THEN
        RETURN NULL;
    END IF;
    SELECT array_agg(tenant_id), array_agg(received_hour) INTO tenants, hours
    FROM (SELECT tenant_id, received_hour FROM analytics.rollup_marks
          GROUP BY 1, 2 ORDER BY min(mark_id) LIMIT most) AS oldest;
    IF tenants IS NULL THEN
        RETURN 0;
    END IF;
    DELETE FROM analytics.rollup_marks AS m USING unnest(tenants, hours) AS p(tenant_id, received_hour)
    WHERE m.tenant_id = p.tenant_id AND m.received_hour = p.received_hour;
    WITH pair AS MATERIALIZED (
        SELECT * FROM unnest(tenants, hours) AS p(tenant_id, received_hour)
    ), fresh AS MATERIALIZED (
        SELECT p.tenant_id, e.hour, p.received_hour, e.type, e.name, e.events
        FROM pair AS p
        -- One range of the primary key each, under any settings of the planner.
        CROSS JOIN LATERAL (
            SELECT date_trunc('hour', own.occurred_at, 'UTC') AS hour, own.type, own.name, count(*) AS events
            FROM analytics.events AS own
            WHERE own.tenant_id = p.tenant_id AND own.received_at >= p.received_hour
              AND own.received_at < p.received_hour + interval '1 hour'
            GROUP BY 1, 2, 3) AS e
    ), gone AS (
        DELETE FROM analytics.rollups AS r USING pair AS p
        WHERE r.tenant_id = p.tenant_id AND r.received_hour = p.received_hour
          AND NOT EXISTS (SELECT FROM fresh AS f
                          WHERE f.tenant_id = r.tenant_id AND f.received_hour = r.received_hour AND f.hour = r.hour
                            AND f.type = r.type AND f.name IS NOT DISTINCT FROM r.name)
        RETURNING r.received_hour
    ), put AS (
        INSERT INTO analytics.rollups AS r (tenant_id, hour, received_hour, type, name, events)
        SELECT tenant_id, hour, received_hour, type, name, events FROM fresh
        ON CONFLICT (tenant_id, hour, received_hour, type, name) DO UPDATE SET events = excluded.events
        WHERE r.events <> excluded.events
        RETURNING r.received_hour
    )
    INSERT INTO analytics.rollup_hours AS h (received_hour, changed_at, refreshes)
    SELECT p.received_hour, CASE WHEN c.received_hour IS NOT NULL THEN clock_timestamp() END, 1
    FROM (SELECT DISTINCT received_hour FROM pair) AS p
    LEFT JOIN (SELECT received_hour FROM gone UNION SELECT received_hour FROM put) AS c USING (received_hour)
    ON CONFLICT (received_hour) DO UPDATE
    SET changed_at = coalesce(excluded.changed_at, h.changed_at), refreshes = h.refreshes + 1;
    RETURN cardinality(tenants);
END $$;
