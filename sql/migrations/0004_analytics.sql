-- What users query, and the keys that make every event count once.
CREATE SCHEMA analytics;

-- A generation of keys is written until it is closed, then only read: uniqueness within the open one is its primary
-- key, against the closed ones a look-up. Whoever inserts keys holds key_lock shared; closing takes it exclusively, so
-- no two transactions ever write into different generations at once.
CREATE TABLE analytics.key_generations (
    generation integer PRIMARY KEY,
    opened_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    closed_at  timestamptz
);
CREATE TABLE analytics.keys (
    generation  integer NOT NULL,
    tenant_id   integer NOT NULL,
    event_id    uuid NOT NULL,
    received_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, event_id, generation)
) PARTITION BY LIST (generation);
CREATE TABLE analytics.keys_1 PARTITION OF analytics.keys FOR VALUES IN (1);
INSERT INTO analytics.key_generations (generation) VALUES (1);

CREATE FUNCTION analytics.key_lock() RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN 1::bigint << 41;

-- Opens a new generation when the open one is older than span, and drops what closed longer than retention ago.
CREATE FUNCTION analytics.rotate_keys(span interval, retention interval) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    newest record;
    old integer;
BEGIN
    SELECT * INTO newest FROM analytics.key_generations ORDER BY generation DESC LIMIT 1;
    IF newest.opened_at + span > clock_timestamp() THEN
        RETURN false;
    END IF;
    PERFORM pg_advisory_xact_lock(analytics.key_lock());
    IF EXISTS (SELECT FROM analytics.key_generations WHERE generation > newest.generation) THEN
        RETURN false;  -- another keeper was faster
    END IF;
    EXECUTE format('CREATE TABLE analytics.%I PARTITION OF analytics.keys FOR VALUES IN (%s)',
                   'keys_' || newest.generation + 1, newest.generation + 1);
    UPDATE analytics.key_generations SET closed_at = clock_timestamp() WHERE generation = newest.generation;
    INSERT INTO analytics.key_generations (generation) VALUES (newest.generation + 1);
    FOR old IN DELETE FROM analytics.key_generations WHERE closed_at + retention < clock_timestamp()
               RETURNING generation LOOP
        EXECUTE format('DROP TABLE analytics.%I', 'keys_' || old);
    END LOOP;
    RETURN true;
END $$;

CREATE TABLE analytics.events (
    tenant_id    integer NOT NULL,
    event_id     uuid NOT NULL,
    message_id   text NOT NULL,
    type         text NOT NULL CHECK (type IN ('track', 'identify', 'page', 'screen', 'group', 'alias')),
    name         text,
    user_id      text,
    anonymous_id text,
    group_id     text,
    previous_id  text,
    occurred_at  timestamptz NOT NULL,
    received_at  timestamptz NOT NULL,
    delivered_at timestamptz NOT NULL,
    properties   jsonb,
    traits       jsonb,
    context      jsonb,
    tenant_name  text,
    tenant_plan  text,
    user_traits  jsonb,
    group_traits jsonb,
    batch_id     bigint NOT NULL,
    PRIMARY KEY (tenant_id, received_at, event_id)
) PARTITION BY RANGE (received_at);

-- Makes the partition of a UTC day if it is missing.
CREATE FUNCTION analytics.open_day(a_day date) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    part text := 'events_' || to_char(a_day, 'YYYYMMDD');
BEGIN
    IF to_regclass('analytics.' || part) IS NOT NULL THEN
        RETURN;
    END IF;
    PERFORM pg_advisory_xact_lock(hashtext('analytics.open_day'));
    IF to_regclass('analytics.' || part) IS NULL THEN
        EXECUTE format('CREATE TABLE analytics.%I PARTITION OF analytics.events FOR VALUES FROM (%L) TO (%L)', part,
                       a_day::timestamp AT TIME ZONE 'UTC', (a_day + 1)::timestamp AT TIME ZONE 'UTC');
    END IF;
END $$;
