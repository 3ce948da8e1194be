-- Creates identity keys that may be gone. They are copied from the generations, or made from the rows themselves. The
-- search for rows starts at the day of `around` and goes outwards, but not before `since`, until all are found. Returns
-- the number of rows found.
CREATE OR REPLACE FUNCTION analytics.recall_keys(
    of_tenants integer[], of_events uuid[], since timestamptz, around timestamptz
) RETURNS bigint LANGUAGE plpgsql SET enable_nestloop = off AS $$
DECLARE
    open_generation integer;
    -- Events that were delivered later have an identity key.
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
        -- The primary key begins with the tenant.
        WHERE d.tenant_id = ANY(left_tenants) AND d.received_at >= greatest(since, a_day::timestamp AT TIME ZONE 'UTC')
          AND d.received_at < least(keyed_since, (a_day + 1)::timestamp AT TIME ZONE 'UTC')
        ORDER BY d.tenant_id, d.event_id, d.received_at
        ON CONFLICT DO NOTHING;
        GET DIAGNOSTICS found_now = ROW_COUNT;
        found_all := found_all + found_now;
    END LOOP;
    RETURN found_all;
END $$;
