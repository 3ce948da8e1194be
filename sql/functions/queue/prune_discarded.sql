-- Prunes the oldest dead letters that were discarded before, at most rows_max. Returns their number. An archived hour
-- may come back, and then its recount and its replay need the dead letter for the event's outcome. Of such a letter
-- only the text is deleted.
CREATE OR REPLACE FUNCTION queue.prune_discarded(before timestamptz, rows_max integer) RETURNS bigint LANGUAGE sql AS $$
    WITH old AS MATERIALIZED (
        SELECT d.tenant_id, d.dead_letter_id,
               h.dropped_at IS NOT NULL AND NOT EXISTS (SELECT FROM control.archives AS a WHERE a.hour = h.hour) AS is_gone
        FROM queue.dead_letters AS d
        LEFT JOIN queue.hours AS h ON h.hour = date_trunc('hour', d.batch_received_at, 'UTC')
        WHERE d.state = 'discarded' AND d.resolved_at < before
          AND (d.payload <> ''
               OR h.dropped_at IS NOT NULL AND NOT EXISTS (SELECT FROM control.archives AS a WHERE a.hour = h.hour))
        ORDER BY d.resolved_at LIMIT rows_max FOR UPDATE OF d SKIP LOCKED
    ), emptied AS (
        UPDATE queue.dead_letters AS d
        SET payload = '', envelope = NULL, message_id = NULL, error = 'pruned'
        FROM old WHERE d.tenant_id = old.tenant_id AND d.dead_letter_id = old.dead_letter_id AND old.is_gone IS NOT TRUE
    ), gone AS (
        DELETE FROM queue.dead_letters AS d
        USING old WHERE d.tenant_id = old.tenant_id AND d.dead_letter_id = old.dead_letter_id AND old.is_gone
        RETURNING d.tenant_id, d.batch_received_at, d.lane, d.failed_in, d.error_class, d.fingerprint
    ), noted AS (
        INSERT INTO queue.pruned AS p (tenant_id, hour, lane, outcome, failed_in, cause, fingerprint, events)
        SELECT tenant_id, date_trunc('hour', batch_received_at, 'UTC'), lane, 'discarded', failed_in, error_class,
               fingerprint, count(*)
        FROM gone GROUP BY 1, 2, 3, 5, 6, 7
        ON CONFLICT (tenant_id, hour, lane, outcome, failed_in, cause, fingerprint)
        DO UPDATE SET events = p.events + excluded.events
    )
    SELECT count(*) FROM old
$$;
