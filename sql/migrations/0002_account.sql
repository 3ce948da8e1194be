-- The account of every event. Deltas are appended by the transaction that does the work and folded into
-- counters later, so that no two transactions ever wait for each other's counter; the view adds both up.
CREATE SCHEMA queue;
CREATE SCHEMA account;

CREATE TYPE queue.lane AS ENUM ('live', 'overflow', 'retry', 'replay');

CREATE TABLE account.counters (
    tenant_id     integer NOT NULL,
    hour          timestamptz NOT NULL CHECK (hour = date_trunc('hour', hour, 'UTC')),
    lane          queue.lane NOT NULL,
    received      bigint NOT NULL DEFAULT 0,
    accepted      bigint NOT NULL DEFAULT 0,
    rejected      bigint NOT NULL DEFAULT 0,
    claimed       bigint NOT NULL DEFAULT 0,
    enriched      bigint NOT NULL DEFAULT 0,
    delivered     bigint NOT NULL DEFAULT 0,
    duplicate     bigint NOT NULL DEFAULT 0,
    dead_lettered bigint NOT NULL DEFAULT 0,
    discarded     bigint NOT NULL DEFAULT 0,
    in_flight     bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant_id, hour, lane)
);
CREATE INDEX ON account.counters (hour);

CREATE TABLE account.deltas (LIKE account.counters INCLUDING DEFAULTS);
ALTER TABLE account.deltas SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000);

CREATE VIEW account.funnel AS
SELECT tenant_id, hour, lane,
       sum(received)::bigint AS received, sum(accepted)::bigint AS accepted, sum(rejected)::bigint AS rejected,
       sum(claimed)::bigint AS claimed, sum(enriched)::bigint AS enriched, sum(delivered)::bigint AS delivered,
       sum(duplicate)::bigint AS duplicate, sum(dead_lettered)::bigint AS dead_lettered,
       sum(discarded)::bigint AS discarded, sum(in_flight)::bigint AS in_flight
FROM (SELECT * FROM account.counters UNION ALL SELECT * FROM account.deltas) AS both_parts
GROUP BY tenant_id, hour, lane;

-- Moves every delta that this transaction sees into the counters; returns how many. Readers see one or the other.
CREATE FUNCTION account.fold() RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    folded bigint;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('account.fold'));
    WITH gone AS (DELETE FROM account.deltas RETURNING *),
    sums AS (
        SELECT tenant_id, hour, lane, count(*) AS n,
               sum(received) AS received, sum(accepted) AS accepted, sum(rejected) AS rejected,
               sum(claimed) AS claimed, sum(enriched) AS enriched, sum(delivered) AS delivered,
               sum(duplicate) AS duplicate, sum(dead_lettered) AS dead_lettered,
               sum(discarded) AS discarded, sum(in_flight) AS in_flight
        FROM gone GROUP BY tenant_id, hour, lane
    ), merged AS (
        INSERT INTO account.counters AS c
        SELECT tenant_id, hour, lane, received, accepted, rejected, claimed, enriched, delivered, duplicate,
               dead_lettered, discarded, in_flight
        FROM sums
        ON CONFLICT (tenant_id, hour, lane) DO UPDATE SET
            received = c.received + excluded.received, accepted = c.accepted + excluded.accepted,
            rejected = c.rejected + excluded.rejected, claimed = c.claimed + excluded.claimed,
            enriched = c.enriched + excluded.enriched, delivered = c.delivered + excluded.delivered,
            duplicate = c.duplicate + excluded.duplicate,
            dead_lettered = c.dead_lettered + excluded.dead_lettered,
            discarded = c.discarded + excluded.discarded, in_flight = c.in_flight + excluded.in_flight
    )
    SELECT coalesce(sum(n), 0) INTO folded FROM sums;
    RETURN folded;
END $$;
