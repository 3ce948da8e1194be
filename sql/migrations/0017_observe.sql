-- What metrics read: sums that only grow and cost the same however many hours there are, and the latency of deliveries.

-- Counted once and never taken back: an event that is erased, or a dead letter that is delivered after all, stays in the
-- sums (account.counters takes it back). in_flight alone goes both ways.
CREATE TABLE account.totals (
    tenant_id     integer PRIMARY KEY,
    received      bigint NOT NULL CHECK (received >= 0),
    accepted      bigint NOT NULL CHECK (accepted >= 0),
    rejected      bigint NOT NULL CHECK (rejected >= 0),
    claimed       bigint NOT NULL CHECK (claimed >= 0),
    enriched      bigint NOT NULL CHECK (enriched >= 0),
    delivered     bigint NOT NULL CHECK (delivered >= 0),
    duplicate     bigint NOT NULL CHECK (duplicate >= 0),
    dead_lettered bigint NOT NULL CHECK (dead_lettered >= 0),
    discarded     bigint NOT NULL CHECK (discarded >= 0),
    in_flight     bigint NOT NULL
-- A row is updated every second.
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);

-- What was counted until now, as it is left.
INSERT INTO account.totals
SELECT tenant_id, sum(received), sum(accepted), sum(rejected), sum(claimed), sum(enriched), sum(delivered),
       sum(duplicate), sum(dead_lettered), sum(discarded), sum(in_flight)
FROM account.counters GROUP BY tenant_id;

CREATE VIEW account.running_totals AS
SELECT tenant_id,
       sum(received)::bigint AS received, sum(accepted)::bigint AS accepted, sum(rejected)::bigint AS rejected,
       sum(claimed)::bigint AS claimed, sum(enriched)::bigint AS enriched, sum(delivered)::bigint AS delivered,
       sum(duplicate)::bigint AS duplicate, sum(dead_lettered)::bigint AS dead_lettered,
       sum(discarded)::bigint AS discarded, sum(in_flight)::bigint AS in_flight
FROM (SELECT * FROM account.totals
      UNION ALL
      SELECT tenant_id, greatest(received, 0), greatest(accepted, 0), greatest(rejected, 0), greatest(claimed, 0),
             greatest(enriched, 0), greatest(delivered, 0), greatest(duplicate, 0), greatest(dead_lettered, 0),
             greatest(discarded, 0), in_flight
      FROM account.deltas) AS both_parts
GROUP BY tenant_id;

-- Upper bounds in seconds, inclusive, of the histogram; bucket n lies below bound n, the last one above all of them.
-- Never to change: sums in the old bounds would be read as sums in the new ones.
CREATE FUNCTION account.latency_bounds() RETURNS float8[] LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN ARRAY[0.002, 0.004, 0.006, 0.008, 0.01, 0.012, 0.016, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60, 300, 3600]::float8[];

-- Times have whole microseconds, and width_bucket's bounds are exclusive: half of one makes them inclusive.
CREATE FUNCTION account.latency_bucket(seconds float8) RETURNS smallint LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN width_bucket(seconds - 0.0000005, account.latency_bounds())::smallint;

-- Written by the transaction that delivers, like account.deltas; of events delivered at once, history left out.
CREATE TABLE account.latency_deltas (
    lane    queue.lane NOT NULL,
    bucket  smallint NOT NULL,
    events  bigint NOT NULL,
    seconds float8 NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000);

CREATE TABLE account.latencies (
    lane    queue.lane NOT NULL,
    bucket  smallint NOT NULL,
    events  bigint NOT NULL,
    seconds float8 NOT NULL,
    PRIMARY KEY (lane, bucket)
) WITH (fillfactor = 50);

CREATE VIEW account.latency AS
SELECT lane, bucket, sum(events)::bigint AS events, sum(seconds) AS seconds
FROM (SELECT * FROM account.latencies UNION ALL SELECT * FROM account.latency_deltas) AS both_parts
GROUP BY lane, bucket;

-- As before, with the totals and the latencies.
CREATE OR REPLACE FUNCTION account.fold() RETURNS bigint LANGUAGE plpgsql AS $$
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
    ), totalled AS (
        INSERT INTO account.totals AS t
        SELECT tenant_id, sum(greatest(received, 0)), sum(greatest(accepted, 0)), sum(greatest(rejected, 0)),
               sum(greatest(claimed, 0)), sum(greatest(enriched, 0)), sum(greatest(delivered, 0)),
               sum(greatest(duplicate, 0)), sum(greatest(dead_lettered, 0)), sum(greatest(discarded, 0)),
               sum(in_flight)
        FROM gone GROUP BY tenant_id
        ON CONFLICT (tenant_id) DO UPDATE SET
            received = t.received + excluded.received, accepted = t.accepted + excluded.accepted,
            rejected = t.rejected + excluded.rejected, claimed = t.claimed + excluded.claimed,
            enriched = t.enriched + excluded.enriched, delivered = t.delivered + excluded.delivered,
            duplicate = t.duplicate + excluded.duplicate,
            dead_lettered = t.dead_lettered + excluded.dead_lettered,
            discarded = t.discarded + excluded.discarded, in_flight = t.in_flight + excluded.in_flight
    )
    SELECT coalesce(sum(n), 0) INTO folded FROM sums;
    WITH gone AS (DELETE FROM account.latency_deltas RETURNING *)
    INSERT INTO account.latencies AS l
    SELECT lane, bucket, sum(events), sum(seconds) FROM gone GROUP BY lane, bucket
    ON CONFLICT (lane, bucket) DO UPDATE SET events = l.events + excluded.events, seconds = l.seconds + excluded.seconds;
    RETURN folded;
END $$;
