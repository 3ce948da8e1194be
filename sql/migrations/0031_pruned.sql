-- How many rejected events and discarded dead letters were pruned, by cause: what is shown and recounted of an hour adds
-- them to the rows that are left. No word of an event is in it.
CREATE TABLE queue.pruned (
    tenant_id   integer NOT NULL REFERENCES control.tenants,
    hour        timestamptz NOT NULL CHECK (hour = date_trunc('hour', hour, 'UTC')),
    lane        queue.lane NOT NULL,
    outcome     text NOT NULL CHECK (outcome IN ('rejected', 'discarded')),
    -- 'received' of a rejected event, else the dead letter's.
    stage       text NOT NULL,
    -- The code of a rejected event, the error's class of a dead letter.
    cause       text NOT NULL,
    fingerprint text NOT NULL DEFAULT '',
    events      bigint NOT NULL CHECK (events > 0),
    PRIMARY KEY (tenant_id, hour, lane, outcome, stage, cause, fingerprint)
);
CREATE INDEX ON queue.pruned (hour);
CREATE INDEX discarded_dead_letters ON queue.dead_letters (resolved_at) WHERE state = 'discarded';

-- Deletes the oldest rejected events that were received before, at most so many; returns how many.
CREATE FUNCTION queue.prune_rejected(before timestamptz, rows_max integer) RETURNS bigint LANGUAGE sql AS $$
    WITH gone AS (
        DELETE FROM queue.quarantine AS q
        USING (SELECT tenant_id, quarantine_id FROM queue.quarantine WHERE received_at < before
               ORDER BY received_at LIMIT rows_max FOR UPDATE SKIP LOCKED) AS old
        WHERE q.tenant_id = old.tenant_id AND q.quarantine_id = old.quarantine_id
        RETURNING q.tenant_id, q.received_at, q.lane, q.code
    ), noted AS (
        INSERT INTO queue.pruned AS p (tenant_id, hour, lane, outcome, stage, cause, events)
        SELECT tenant_id, date_trunc('hour', received_at, 'UTC'), lane, 'rejected', 'received', code, count(*)
        FROM gone GROUP BY 1, 2, 3, 6
        ON CONFLICT (tenant_id, hour, lane, outcome, stage, cause, fingerprint)
        DO UPDATE SET events = p.events + excluded.events
    )
    SELECT count(*) FROM gone
$$;

-- The same of dead letters that were discarded before. An archived hour may come back, and a letter tells its recount and
-- its replay what became of the event: there only the letter's words go.
CREATE FUNCTION queue.prune_discarded(before timestamptz, rows_max integer) RETURNS bigint LANGUAGE sql AS $$
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
        RETURNING d.tenant_id, d.batch_received_at, d.lane, d.stage, d.error_class, d.fingerprint
    ), noted AS (
        INSERT INTO queue.pruned AS p (tenant_id, hour, lane, outcome, stage, cause, fingerprint, events)
        SELECT tenant_id, date_trunc('hour', batch_received_at, 'UTC'), lane, 'discarded', stage, error_class, fingerprint,
               count(*)
        FROM gone GROUP BY 1, 2, 3, 5, 6, 7
        ON CONFLICT (tenant_id, hour, lane, outcome, stage, cause, fingerprint)
        DO UPDATE SET events = p.events + excluded.events
    )
    SELECT count(*) FROM old
$$;
