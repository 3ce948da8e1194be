-- The durable queue: one append-only row a group commit, and a narrow row of work beside it.
CREATE SEQUENCE queue.batch_ids;

CREATE TABLE queue.batches (
    batch_id     bigint NOT NULL,
    received_at  timestamptz NOT NULL,
    lane         queue.lane NOT NULL,
    events       integer NOT NULL CHECK (events > 0),
    tenant_ids   integer[] NOT NULL,
    event_ids    uuid[] NOT NULL,
    -- The client's own time; NULL where it gave none that can be used.
    client_ats   timestamptz[] NOT NULL,
    -- Each event's own received_at, where history was imported; NULL: all of the batch share received_at.
    received_ats timestamptz[],
    -- First letter of track, identify, page, screen, group, alias.
    types        "char"[] NOT NULL,
    lengths      integer[] NOT NULL,
    -- What an event's request said around it (JSON: context, sentAt); 0: nothing, else an index into envelopes.
    envelope_of  integer[],
    envelopes    bytea[],
    codec        text NOT NULL CHECK (codec IN ('plain', 'zstd')),
    -- The original bytes of all events, one after the other.
    payload      bytea NOT NULL,
    PRIMARY KEY (batch_id, received_at),
    CHECK (cardinality(tenant_ids) = events AND cardinality(event_ids) = events
           AND cardinality(client_ats) = events AND cardinality(types) = events
           AND cardinality(lengths) = events
           AND (received_ats IS NULL OR cardinality(received_ats) = events)
           AND (envelope_of IS NULL OR cardinality(envelope_of) = events))
) PARTITION BY RANGE (received_at);
-- Compressed by the gateway or incompressible: another pass by the server would only cost latency.
ALTER TABLE queue.batches
    ALTER payload SET STORAGE EXTERNAL, ALTER event_ids SET STORAGE EXTERNAL, ALTER client_ats SET STORAGE EXTERNAL;

-- What is to be done: deleted when done. A batch that crashed its worker is split by event range.
CREATE TABLE queue.work (
    lane        queue.lane NOT NULL,
    work_id     bigint GENERATED ALWAYS AS IDENTITY,
    batch_id    bigint NOT NULL,
    received_at timestamptz NOT NULL,
    first_event integer NOT NULL DEFAULT 0,
    end_event   integer NOT NULL,
    -- How many workers died holding it: counted by their pool (query reap), since their transactions leave no trace.
    attempts    smallint NOT NULL DEFAULT 0,
    PRIMARY KEY (lane, work_id),
    CHECK (first_event >= 0 AND end_event > first_event)
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);
CREATE INDEX suspect_work ON queue.work (work_id) WHERE attempts > 0;

CREATE TABLE queue.hours (
    hour       timestamptz PRIMARY KEY CHECK (hour = date_trunc('hour', hour, 'UTC')),
    sealed_at  timestamptz,
    -- How often it was sealed: an import opens a sealed hour again.
    seals      integer NOT NULL DEFAULT 0,
    dropped_at timestamptz
);

CREATE TABLE queue.quarantine (
    tenant_id     integer NOT NULL REFERENCES control.tenants,
    quarantine_id bigint GENERATED ALWAYS AS IDENTITY,
    received_at   timestamptz NOT NULL,
    lane          queue.lane NOT NULL,
    message_id    text,
    code          text NOT NULL,
    message       text NOT NULL,
    payload       bytea NOT NULL,
    PRIMARY KEY (tenant_id, quarantine_id)
);
CREATE INDEX ON queue.quarantine (received_at);

CREATE TABLE queue.dead_letters (
    tenant_id       integer NOT NULL REFERENCES control.tenants,
    dead_letter_id  bigint GENERATED ALWAYS AS IDENTITY,
    event_id        uuid NOT NULL,
    message_id      text,
    type            "char" NOT NULL,
    lane            queue.lane NOT NULL,
    batch_id        bigint NOT NULL,
    event_index     integer NOT NULL,
    batch_received_at timestamptz NOT NULL,
    received_at     timestamptz NOT NULL,
    client_at       timestamptz,
    envelope        bytea,
    payload         bytea NOT NULL,
    stage           text NOT NULL CHECK (stage IN ('claim', 'enrich', 'transform', 'load')),
    error_class     text NOT NULL,
    error           text NOT NULL,
    fingerprint     text NOT NULL,
    state           text NOT NULL CHECK (state IN ('waiting', 'exhausted', 'delivered', 'duplicate', 'discarded')),
    attempts        smallint NOT NULL CHECK (attempts BETWEEN 1 AND 100),
    next_attempt_at timestamptz,
    created_at      timestamptz NOT NULL DEFAULT now(),
    resolved_at     timestamptz,
    reason          text,
    PRIMARY KEY (tenant_id, dead_letter_id),
    CHECK ((state = 'waiting') = (next_attempt_at IS NOT NULL)),
    CHECK ((state IN ('delivered', 'duplicate', 'discarded')) = (resolved_at IS NOT NULL)),
    CHECK (state <> 'discarded' OR reason IS NOT NULL)
);
CREATE UNIQUE INDEX one_dead_letter_an_occurrence ON queue.dead_letters (batch_id, event_index);
CREATE INDEX waiting_dead_letters ON queue.dead_letters (next_attempt_at) WHERE state = 'waiting';
CREATE INDEX ON queue.dead_letters (batch_received_at);

-- Rows for people and for the audit.
CREATE VIEW queue.events AS
SELECT b.batch_id, e.position::integer - 1 AS event_index, b.lane,
       e.tenant_id, e.event_id, e.type, e.client_at, coalesce(e.own_received_at, b.received_at) AS received_at,
       b.received_at AS batch_received_at, e.length AS bytes
FROM queue.batches AS b
CROSS JOIN LATERAL unnest(b.tenant_ids, b.event_ids, b.types, b.client_ats, b.lengths, b.received_ats)
    WITH ORDINALITY AS e(tenant_id, event_id, type, client_at, length, own_received_at, position);

-- Makes the hour's partition, and that of its day in the analytics tables, if they are missing: whatever is accepted
-- has a place to be delivered to.
CREATE FUNCTION queue.open_hour(an_hour timestamptz) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    part text := 'batches_' || to_char(an_hour AT TIME ZONE 'UTC', 'YYYYMMDD_HH24');
BEGIN
    IF EXISTS (SELECT FROM queue.hours WHERE hour = an_hour AND dropped_at IS NULL) THEN
        RETURN;
    END IF;
    PERFORM pg_advisory_xact_lock(hashtext('queue.open_hour'));
    IF to_regclass('queue.' || part) IS NULL THEN
        EXECUTE format('CREATE TABLE queue.%I PARTITION OF queue.batches FOR VALUES FROM (%L) TO (%L)',
                       part, an_hour, an_hour + interval '1 hour');
    END IF;
    PERFORM analytics.open_day((an_hour AT TIME ZONE 'UTC')::date);
    INSERT INTO queue.hours (hour) VALUES (an_hour)
    ON CONFLICT (hour) DO UPDATE SET dropped_at = NULL, sealed_at = NULL;
END $$;

-- Key of the advisory lock that whoever writes into an hour holds shared, and whoever seals it exclusively.
CREATE FUNCTION queue.hour_lock(an_hour timestamptz) RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN (extract(epoch FROM an_hour) / 3600)::bigint + (1::bigint << 40);

-- The database's clock, held to an hour that this transaction may write into: never a sealed one, not even when
-- the server's clock was stepped back.
CREATE FUNCTION queue.enter_hour() RETURNS timestamptz LANGUAGE plpgsql AS $$
DECLARE
    now_at timestamptz;
    this_hour timestamptz;
    sealed_until timestamptz;
    state record;
BEGIN
    LOOP
        SELECT max(hour) + interval '1 hour' INTO sealed_until FROM queue.hours WHERE sealed_at IS NOT NULL;
        now_at := greatest(clock_timestamp(), sealed_until);
        this_hour := date_trunc('hour', now_at, 'UTC');
        PERFORM pg_advisory_xact_lock_shared(queue.hour_lock(this_hour));
        SELECT sealed_at, dropped_at INTO state FROM queue.hours WHERE hour = this_hour;
        IF NOT FOUND THEN
            PERFORM queue.open_hour(this_hour);
            RETURN now_at;
        END IF;
        IF state.sealed_at IS NULL THEN
            RETURN now_at;
        END IF;
    END LOOP;
END $$;

-- Makes one group commit durable: the batch, its work, the quarantined events and the account of both. One call is
-- one transaction and one round trip. Rejected events have their own arrays; both parts may be empty.
CREATE FUNCTION queue.accept(
    a_lane queue.lane, p_tenant_ids integer[], p_event_ids uuid[], p_client_ats timestamptz[], p_types "char"[],
    p_lengths integer[], p_envelope_of integer[], p_envelopes bytea[], p_codec text, p_payload bytea,
    r_tenant_ids integer[], r_message_ids text[], r_codes text[], r_messages text[], r_payloads bytea[],
    OUT batch_id bigint, OUT received_at timestamptz
) LANGUAGE plpgsql AS $$
BEGIN
    received_at := queue.enter_hour();
    IF cardinality(p_tenant_ids) > 0 THEN
        batch_id := nextval('queue.batch_ids');
        INSERT INTO queue.batches (batch_id, received_at, lane, events, tenant_ids, event_ids, client_ats, types,
                                   lengths, envelope_of, envelopes, codec, payload)
        VALUES (batch_id, received_at, a_lane, cardinality(p_tenant_ids), p_tenant_ids, p_event_ids, p_client_ats,
                p_types, p_lengths, p_envelope_of, p_envelopes, p_codec, p_payload);
        INSERT INTO queue.work (lane, batch_id, received_at, end_event)
        VALUES (a_lane, batch_id, received_at, cardinality(p_tenant_ids));
        INSERT INTO account.deltas (tenant_id, hour, lane, received, accepted, in_flight)
        SELECT tenant_id, date_trunc('hour', received_at, 'UTC'), a_lane, count(*), count(*), count(*)
        FROM unnest(p_tenant_ids) AS tenant_id GROUP BY tenant_id;
    END IF;
    IF cardinality(r_tenant_ids) > 0 THEN
        INSERT INTO queue.quarantine (tenant_id, received_at, lane, message_id, code, message, payload)
        SELECT r.tenant_id, accept.received_at, a_lane, r.message_id, r.code, r.message, r.payload
        FROM unnest(r_tenant_ids, r_message_ids, r_codes, r_messages, r_payloads)
            AS r(tenant_id, message_id, code, message, payload);
        INSERT INTO account.deltas (tenant_id, hour, lane, received, rejected)
        SELECT tenant_id, date_trunc('hour', received_at, 'UTC'), a_lane, count(*), count(*)
        FROM unnest(r_tenant_ids) AS tenant_id GROUP BY tenant_id;
    END IF;
END $$;

-- Seals an hour: true when no open transaction can still write into it, now or later.
CREATE FUNCTION queue.seal_hour(an_hour timestamptz) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    IF an_hour + interval '1 hour' > clock_timestamp()
       OR NOT pg_try_advisory_xact_lock(queue.hour_lock(an_hour)) THEN
        RETURN false;
    END IF;
    UPDATE queue.hours SET sealed_at = clock_timestamp(), seals = seals + 1
    WHERE hour = an_hour AND sealed_at IS NULL AND dropped_at IS NULL;
    RETURN EXISTS (SELECT FROM queue.hours WHERE hour = an_hour AND sealed_at IS NOT NULL);
END $$;

-- Drops an hour's batches, or says why not.
CREATE FUNCTION queue.drop_hour(an_hour timestamptz, retention interval) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    state record;
    waiting bigint;
BEGIN
    IF NOT pg_try_advisory_xact_lock(queue.hour_lock(an_hour)) THEN
        RAISE EXCEPTION 'hour % is being written', an_hour USING ERRCODE = 'object_in_use';
    END IF;
    SELECT * INTO state FROM queue.hours WHERE hour = an_hour;
    IF state.sealed_at IS NULL OR state.sealed_at + retention > clock_timestamp() THEN
        RAISE EXCEPTION 'hour % was not sealed % ago', an_hour, retention USING ERRCODE = 'object_in_use';
    END IF;
    SELECT count(*) INTO waiting FROM queue.work
    WHERE received_at >= an_hour AND received_at < an_hour + interval '1 hour';
    IF waiting > 0 THEN
        RAISE EXCEPTION 'hour % still has % pieces of work', an_hour, waiting USING ERRCODE = 'object_in_use';
    END IF;
    EXECUTE format('DROP TABLE IF EXISTS queue.%I', 'batches_' || to_char(an_hour AT TIME ZONE 'UTC', 'YYYYMMDD_HH24'));
    UPDATE queue.hours SET dropped_at = clock_timestamp() WHERE hour = an_hour;
END $$;
