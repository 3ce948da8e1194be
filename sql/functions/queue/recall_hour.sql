-- Creates identity keys for every identity of a restored hour that is in production, wherever its row is. Without an
-- identity key a replay would take a duplicate for an event that production lacks. Dead letters of the hour keep their
-- identity keys. Erased and discarded events are never delivered.
CREATE OR REPLACE FUNCTION queue.recall_hour(an_hour timestamptz) RETURNS void LANGUAGE plpgsql AS $$
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
