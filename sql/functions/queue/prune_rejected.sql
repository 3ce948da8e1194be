-- Deletes the oldest rejected events that were received before, at most rows_max. Returns their number.
CREATE OR REPLACE FUNCTION queue.prune_rejected(before timestamptz, rows_max integer) RETURNS bigint LANGUAGE sql AS $$
    WITH gone AS (
        DELETE FROM queue.quarantine AS q
        USING (SELECT tenant_id, quarantine_id FROM queue.quarantine WHERE received_at < before
               ORDER BY received_at LIMIT rows_max FOR UPDATE SKIP LOCKED) AS old
        WHERE q.tenant_id = old.tenant_id AND q.quarantine_id = old.quarantine_id
        RETURNING q.tenant_id, q.received_at, q.lane, q.code
    ), noted AS (
        INSERT INTO queue.pruned AS p (tenant_id, hour, lane, outcome, failed_in, cause, events)
        SELECT tenant_id, date_trunc('hour', received_at, 'UTC'), lane, 'rejected', 'validate', code, count(*)
        FROM gone GROUP BY 1, 2, 3, 6
        ON CONFLICT (tenant_id, hour, lane, outcome, failed_in, cause, fingerprint)
        DO UPDATE SET events = p.events + excluded.events
    )
    SELECT count(*) FROM gone
$$;
