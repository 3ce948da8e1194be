-- Moves up to `most` deltas, and as many of the latencies, into the counters. Returns the number of the more numerous
-- kind. Fewer than `most`: this transaction sees no more of them. Readers see each of them in exactly one place.
CREATE OR REPLACE FUNCTION account.fold(most integer DEFAULT 50000) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    folded bigint;
    folded_latencies bigint;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('account.fold'));
    WITH gone AS (
        DELETE FROM account.deltas WHERE ctid = ANY(ARRAY(SELECT ctid FROM account.deltas LIMIT most)) RETURNING *
    ), sums AS (
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
    WITH gone AS (
        DELETE FROM account.latency_deltas
        WHERE ctid = ANY(ARRAY(SELECT ctid FROM account.latency_deltas LIMIT most)) RETURNING *
    ), merged AS (
        INSERT INTO account.latencies AS l
        SELECT lane, bucket, sum(events), sum(seconds) FROM gone GROUP BY lane, bucket
        ON CONFLICT (lane, bucket) DO UPDATE
        SET events = l.events + excluded.events, seconds = l.seconds + excluded.seconds
    )
    SELECT count(*) INTO folded_latencies FROM gone;
    RETURN greatest(folded, folded_latencies);
END $$;
