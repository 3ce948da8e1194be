-- What dashboards read: events by tenant, hour, type and name, and what keeps it right whatever changes the rows.

-- Adds up over anything. `hour` is of occurred_at, which is what is asked for; received_hour is of received_at: one
-- stretch of the rows' primary key, so that a cell can be counted anew without reading anything else.
CREATE TABLE analytics.rollups (
    tenant_id     integer NOT NULL,
    hour          timestamptz NOT NULL CHECK (hour = date_trunc('hour', hour, 'UTC')),
    received_hour timestamptz NOT NULL CHECK (received_hour = date_trunc('hour', received_hour, 'UTC')),
    type          text NOT NULL,
    name          text,
    events        bigint NOT NULL CHECK (events > 0),
    UNIQUE NULLS NOT DISTINCT (tenant_id, hour, received_hour, type, name)
);
CREATE INDEX ON analytics.rollups (received_hour, tenant_id);

-- Whose rows of which hour of received_at have changed. Appended by the transaction that changes them, never shared and
-- never skipped because there is one: what a transaction changed can be seen exactly where its mark can be seen.
CREATE TABLE analytics.rollup_marks (
    mark_id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id     integer NOT NULL,
    received_hour timestamptz NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000);
CREATE INDEX ON analytics.rollup_marks (tenant_id, received_hour);

-- When cells of an hour of received_at last changed, and when they were last compared with the rows.
CREATE TABLE analytics.rollup_hours (
    received_hour timestamptz PRIMARY KEY,
    changed_at    timestamptz,
    checked_at    timestamptz
);

-- Loads mark nothing: the account's delta is their mark until it is folded, and the fold makes one of it.
CREATE FUNCTION analytics.mark_folded() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO analytics.rollup_marks (tenant_id, received_hour)
    SELECT DISTINCT tenant_id, hour FROM folded WHERE delivered <> 0;
    RETURN NULL;
END $$;
CREATE TRIGGER mark_rollups AFTER DELETE ON account.deltas REFERENCING OLD TABLE AS folded
FOR EACH STATEMENT EXECUTE FUNCTION analytics.mark_folded();

-- Whose rows of which hour may not be rolled up yet.
CREATE VIEW analytics.unrolled AS
SELECT tenant_id, received_hour FROM analytics.rollup_marks
UNION
SELECT tenant_id, hour FROM account.deltas WHERE delivered <> 0;

-- For what was delivered before there were roll-ups. The trigger's lock keeps every fold out until this is committed.
INSERT INTO analytics.rollup_marks (tenant_id, received_hour)
SELECT DISTINCT tenant_id, hour FROM account.funnel WHERE accepted > 0 ORDER BY hour DESC;

-- Counts anew the cells of up to `most` tenants' hours that are marked, the longest marked first; returns how many, or
-- NULL where somebody else is at it. One at a time, so that no older count is written over a newer one; each statement
-- has a snapshot of its own, so that the rows are read after their marks were taken away, and seen if those were.
CREATE FUNCTION analytics.refresh_rollups(most integer) RETURNS integer LANGUAGE plpgsql AS $$
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
        -- One stretch of the primary key each, under any settings of the planner.
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
    INSERT INTO analytics.rollup_hours AS h (received_hour, changed_at)
    SELECT received_hour, clock_timestamp() FROM (SELECT received_hour FROM gone UNION SELECT received_hour FROM put) AS c
    ON CONFLICT (received_hour) DO UPDATE SET changed_at = excluded.changed_at;
    RETURN cardinality(tenants);
END $$;

-- How many different people (user id, else anonymous id) were there in each hour of occurred_at, and in the whole window
-- (hour NULL). Counted from the rows, as such numbers do not add up; the roll-ups only say in which hours of received_at
-- the rows are. Exact for what is rolled up.
CREATE FUNCTION analytics.people(a_tenant integer, from_at timestamptz, to_at timestamptz)
RETURNS TABLE (hour timestamptz, people bigint) LANGUAGE sql STABLE AS $$
    SELECT date_trunc('hour', e.occurred_at, 'UTC'),
           count(DISTINCT CASE WHEN e.user_id IS NOT NULL THEN 'u' || e.user_id ELSE 'a' || e.anonymous_id END)
    FROM (SELECT DISTINCT received_hour FROM analytics.rollups AS r
          WHERE r.tenant_id = a_tenant AND r.hour >= date_trunc('hour', from_at, 'UTC') AND r.hour < to_at) AS h
    CROSS JOIN LATERAL (
        SELECT occurred_at, user_id, anonymous_id FROM analytics.events AS own
        WHERE own.tenant_id = a_tenant AND own.received_at >= h.received_hour
          AND own.received_at < h.received_hour + interval '1 hour'
          AND own.occurred_at >= from_at AND own.occurred_at < to_at OFFSET 0) AS e
    GROUP BY GROUPING SETS ((date_trunc('hour', e.occurred_at, 'UTC')), ())
$$;
