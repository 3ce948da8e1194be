-- The transactions that write a table. A row is inserted under ROW EXCLUSIVE, which is taken before the row's id is drawn
-- and released after the row can be seen by others, however long its commit takes.
CREATE FUNCTION queue.writers_of(a_table regclass) RETURNS SETOF text LANGUAGE sql VOLATILE AS $$
    SELECT virtualtransaction FROM pg_locks
    WHERE locktype = 'relation' AND mode = 'RowExclusiveLock' AND granted AND relation = a_table
      AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
$$;

-- How many workers died holding the letter since it was last tried to an end: such a letter is tried alone.
ALTER TABLE queue.dead_letters ADD COLUMN deaths smallint NOT NULL DEFAULT 0;

-- Deltas that each call moves into the counters are bounded, so that the call ends in time however many there are.
DROP FUNCTION account.fold();

-- Moves up to `most` deltas, and as many of the latencies, into the counters; returns how many of the more numerous kind.
-- Fewer than `most`: none are left that this transaction sees. Readers see each of them in one place or the other.
CREATE FUNCTION account.fold(most integer DEFAULT 50000) RETURNS bigint LANGUAGE plpgsql AS $$
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

-- The keeper's chores: when each was done last, and since when it fails.
CREATE TABLE queue.chores (
    name          text PRIMARY KEY,
    done_at       timestamptz,
    -- It is late when it was not done for so long.
    late_after    interval NOT NULL,
    failing_since timestamptz,
    last_error    text,
    CHECK ((failing_since IS NULL) = (last_error IS NULL))
);

-- Worker processes that ended by themselves, as their pools saw it; kept for a day.
CREATE TABLE queue.worker_deaths (
    died_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    slot    integer NOT NULL,
    -- Of the process: -9 is SIGKILL.
    status  integer NOT NULL
);
CREATE INDEX ON queue.worker_deaths (died_at);
