-- How long an identity is known, tied to everything that can still bring it to production.

-- When the hour was opened, or restored from its archive: none of its events was processed before. NULL: opened before this
-- was noted.
ALTER TABLE queue.hours ADD COLUMN opened_at timestamptz;
ALTER TABLE queue.hours ALTER opened_at SET DEFAULT clock_timestamp();

-- The last unresolved dead letter whose identity was looked for in the generation, before the generation is dropped.
ALTER TABLE analytics.key_generations ADD COLUMN letters_until bigint NOT NULL DEFAULT 0;
CREATE INDEX unresolved_dead_letters ON queue.dead_letters (dead_letter_id) WHERE state IN ('waiting', 'exhausted');

-- Why a generation of keys cannot be dropped yet; NULL: it can. An identity that occurs in an hour has a key in the
-- generation that was open when the occurrence was processed, or in a later one.
CREATE FUNCTION analytics.why_generation_kept(a_generation integer, retention interval) RETURNS text
LANGUAGE sql STABLE AS $$
    SELECT coalesce(
        CASE WHEN g.closed_at IS NULL THEN 'is open'
             WHEN g.closed_at + retention <= clock_timestamp() THEN NULL
             ELSE format('was not closed %s ago', retention) END,
        (SELECT format('is needed by %s kept hours, the oldest is %s', count(*), min(hour)) FROM queue.hours
         WHERE dropped_at IS NULL AND coalesce(opened_at, '-infinity') < g.closed_at HAVING count(*) > 0),
        -- Accepted while the generation was still to be known, and not yet compared with it.
        (SELECT format('is needed by %s pieces of work, the oldest is of %s', count(*), min(received_at)) FROM queue.work
         WHERE received_at < g.closed_at + retention HAVING count(*) > 0))
    FROM analytics.key_generations AS g WHERE g.generation = a_generation
$$;

-- Copies keys of a generation into the open one where an unresolved dead letter has the identity, for the next `most`
-- letters; true: there are no more. The caller holds key_lock exclusively, so that no letter is being written.
CREATE FUNCTION analytics.carry_keys(a_generation integer, most integer) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    looked_at bigint;
    last_letter bigint;
BEGIN
    WITH letter AS MATERIALIZED (
        SELECT dead_letter_id, tenant_id, event_id FROM queue.dead_letters
        WHERE state IN ('waiting', 'exhausted')
          AND dead_letter_id > (SELECT letters_until FROM analytics.key_generations WHERE generation = a_generation)
        ORDER BY dead_letter_id
        LIMIT most
    ), carried AS (
        INSERT INTO analytics.keys (generation, tenant_id, event_id, received_at)
        SELECT DISTINCT ON (l.tenant_id, l.event_id) (SELECT max(generation) FROM analytics.key_generations),
               l.tenant_id, l.event_id, k.received_at
        FROM letter AS l
        CROSS JOIN LATERAL (SELECT received_at FROM analytics.keys AS own
                            WHERE own.tenant_id = l.tenant_id AND own.event_id = l.event_id
                              AND own.generation = a_generation OFFSET 0) AS k
        ORDER BY l.tenant_id, l.event_id
        ON CONFLICT DO NOTHING
    )
    SELECT count(*), max(dead_letter_id) INTO looked_at, last_letter FROM letter;
    UPDATE analytics.key_generations SET letters_until = coalesce(last_letter, letters_until)
    WHERE generation = a_generation;
    RETURN looked_at < most;
END $$;

-- Opens a new generation when the open one is older than span; true: it did. Drops the oldest one, at most one a call, when
-- nothing needs it (why_generation_kept) and the keys of unresolved dead letters were carried out of it.
CREATE OR REPLACE FUNCTION analytics.rotate_keys(span interval, retention interval) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    newest record;
    oldest integer;
    is_due boolean;
    is_open boolean := false;
BEGIN
    SELECT * INTO newest FROM analytics.key_generations ORDER BY generation DESC LIMIT 1;
    SELECT min(generation) INTO oldest FROM analytics.key_generations WHERE closed_at IS NOT NULL;
    is_due := newest.opened_at + span <= clock_timestamp();
    IF NOT is_due AND (oldest IS NULL OR analytics.why_generation_kept(oldest, retention) IS NOT NULL) THEN
        RETURN false;
    END IF;
    -- Waits for everybody who writes keys: whatever they accepted or processed is seen by the statements below.
    PERFORM pg_advisory_xact_lock(analytics.key_lock());
    IF is_due AND NOT EXISTS (SELECT FROM analytics.key_generations WHERE generation > newest.generation) THEN
        EXECUTE format('CREATE TABLE analytics.%I PARTITION OF analytics.keys FOR VALUES IN (%s)',
                       'keys_' || newest.generation + 1, newest.generation + 1);
        UPDATE analytics.key_generations SET closed_at = clock_timestamp() WHERE generation = newest.generation;
        INSERT INTO analytics.key_generations (generation) VALUES (newest.generation + 1);
        is_open := true;
    END IF;
    -- Asked again: another keeper may have dropped it, and what came meanwhile may need it.
    SELECT min(generation) INTO oldest FROM analytics.key_generations WHERE closed_at IS NOT NULL;
    IF oldest IS NOT NULL AND analytics.why_generation_kept(oldest, retention) IS NULL
       AND analytics.carry_keys(oldest, 5000) THEN
        DELETE FROM analytics.key_generations WHERE generation = oldest;
        EXECUTE format('DROP TABLE analytics.%I', 'keys_' || oldest);
    END IF;
    RETURN is_open;
END $$;

-- Keys for identities whose keys may be gone: copied from the generations, or made anew of the rows themselves, which are
-- looked for from the day of `around` outwards, from `since` on, until all are found. Returns how many rows were found.
CREATE FUNCTION analytics.recall_keys(
    of_tenants integer[], of_events uuid[], since timestamptz, around timestamptz
) RETURNS bigint LANGUAGE plpgsql SET enable_nestloop = off AS $$
DECLARE
    open_generation integer;
    -- Whoever was delivered later has a key.
    keyed_since timestamptz;
    left_tenants integer[] := of_tenants;
    left_events uuid[] := of_events;
    a_day date;
    found_now bigint;
    found_all bigint := 0;
BEGIN
    PERFORM pg_advisory_xact_lock_shared(analytics.key_lock());
    SELECT max(generation), min(opened_at) INTO open_generation, keyed_since FROM analytics.key_generations;
    INSERT INTO analytics.keys (generation, tenant_id, event_id, received_at)
    SELECT DISTINCT ON (i.tenant_id, i.event_id) open_generation, i.tenant_id, i.event_id, k.received_at
    FROM unnest(of_tenants, of_events) AS i(tenant_id, event_id)
    CROSS JOIN LATERAL (SELECT received_at FROM analytics.keys AS own
                        WHERE own.tenant_id = i.tenant_id AND own.event_id = i.event_id LIMIT 1) AS k
    ORDER BY i.tenant_id, i.event_id
    ON CONFLICT DO NOTHING;
    FOR a_day IN
        SELECT to_date(right(c.relname, 8), 'YYYYMMDD') AS day
        FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
        WHERE i.inhparent = 'analytics.events'::regclass AND c.relname ~ '^events_\d{8}$'
        ORDER BY abs(to_date(right(c.relname, 8), 'YYYYMMDD') - (around AT TIME ZONE 'UTC')::date)
    LOOP
        CONTINUE WHEN (a_day + 1)::timestamp AT TIME ZONE 'UTC' <= since
                      OR a_day::timestamp AT TIME ZONE 'UTC' >= keyed_since;
        SELECT array_agg(i.tenant_id), array_agg(i.event_id) INTO left_tenants, left_events
        FROM unnest(left_tenants, left_events) AS i(tenant_id, event_id)
        WHERE NOT EXISTS (SELECT FROM analytics.keys AS k
                          WHERE k.generation = open_generation AND k.tenant_id = i.tenant_id
                            AND k.event_id = i.event_id OFFSET 0);
        EXIT WHEN left_tenants IS NULL;
        INSERT INTO analytics.keys (generation, tenant_id, event_id, received_at)
        SELECT DISTINCT ON (d.tenant_id, d.event_id) open_generation, d.tenant_id, d.event_id, d.received_at
        FROM unnest(left_tenants, left_events) AS i(tenant_id, event_id)
        JOIN account.delivered AS d USING (tenant_id, event_id)
        WHERE d.received_at >= greatest(since, a_day::timestamp AT TIME ZONE 'UTC')
          AND d.received_at < least(keyed_since, (a_day + 1)::timestamp AT TIME ZONE 'UTC')
        ORDER BY d.tenant_id, d.event_id, d.received_at
        ON CONFLICT DO NOTHING;
        GET DIAGNOSTICS found_now = ROW_COUNT;
        found_all := found_all + found_now;
    END LOOP;
    RETURN found_all;
END $$;

-- Keys for every identity of a restored hour that production has, wherever its row is. Without a key a replay would take a
-- duplicate for an event that production lacks. Dead letters of the hour keep their keys, and what was erased or discarded
-- is never delivered.
CREATE FUNCTION queue.recall_hour(an_hour timestamptz) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared(analytics.key_lock());
    INSERT INTO analytics.keys (generation, tenant_id, event_id, received_at)
    SELECT DISTINCT ON (tenant_id, event_id) (SELECT max(generation) FROM analytics.key_generations), tenant_id, event_id,
           received_at
    FROM account.delivered
    WHERE received_at >= an_hour AND received_at < an_hour + interval '1 hour'
    ORDER BY tenant_id, event_id, received_at
    ON CONFLICT DO NOTHING;
    PERFORM analytics.recall_keys(array_agg(o.tenant_id), array_agg(o.event_id), '-infinity', an_hour)
    FROM (SELECT DISTINCT e.tenant_id, e.event_id
          FROM queue.events AS e
          WHERE e.batch_received_at >= an_hour AND e.batch_received_at < an_hour + interval '1 hour'
            AND NOT EXISTS (SELECT FROM analytics.keys AS k
                            WHERE k.generation = (SELECT max(generation) FROM analytics.key_generations)
                              AND k.tenant_id = e.tenant_id AND k.event_id = e.event_id OFFSET 0)
            AND NOT EXISTS (SELECT FROM queue.dead_letters AS d
                            WHERE d.batch_id = e.batch_id AND d.event_index = e.event_index
                              AND d.state IN ('waiting', 'exhausted', 'discarded'))
            AND NOT EXISTS (SELECT FROM control.erased_events AS x
                            WHERE x.tenant_id = e.tenant_id AND x.event_id = e.event_id)) AS o
    HAVING count(*) > 0;
END $$;

-- Takes an archived hour back for a replay: its partition again, sealed now, so that its retention starts anew. Its
-- account is what it was: nothing is received, and nothing waits. False: it was never dropped. The caller puts the batches
-- in and calls recall_hour.
CREATE OR REPLACE FUNCTION queue.restore_hour(an_hour timestamptz) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    sealed integer;
BEGIN
    PERFORM pg_advisory_xact_lock_shared(queue.hour_lock(an_hour));
    SELECT seals INTO sealed FROM queue.hours WHERE hour = an_hour AND dropped_at IS NOT NULL;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    PERFORM queue.open_hour(an_hour);
    UPDATE queue.hours SET sealed_at = clock_timestamp(), opened_at = clock_timestamp(), seals = sealed
    WHERE hour = an_hour;
    UPDATE control.archives SET restored_at = clock_timestamp() WHERE hour = an_hour;
    RETURN true;
END $$;
