-- Moving over from an old pipeline: which pipeline is production is one row with an epoch, stamped on each batch in the
-- transaction that accepts it. So each event is production's through exactly one pipeline, whenever the flag turns.
CREATE TYPE control.phase AS ENUM ('legacy_only', 'shadow', 'platform_primary', 'legacy_off');

-- The newest epoch is in force. Rows are never changed: what a batch was stamped with stays true.
CREATE TABLE control.epochs (
    epoch       integer PRIMARY KEY,
    phase       control.phase NOT NULL,
    opened_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- The old pipeline is production; the platform writes beside it, into shadow.events.
    is_shadow   boolean NOT NULL GENERATED ALWAYS AS (phase IN ('legacy_only', 'shadow')) STORED,
    -- Every accepted event goes to the old pipeline as well.
    is_mirrored boolean NOT NULL GENERATED ALWAYS AS (phase <> 'legacy_off') STORED
);
-- What is imported belongs to it too: history is the platform's, and is mirrored to nobody.
INSERT INTO control.epochs (epoch, phase) VALUES (1, 'legacy_off');

ALTER TABLE queue.batches ADD COLUMN epoch integer NOT NULL DEFAULT 1;
ALTER TABLE queue.dead_letters ADD COLUMN epoch integer NOT NULL DEFAULT 1;
ALTER TABLE analytics.events ADD COLUMN epoch integer NOT NULL DEFAULT 1,
                             -- The recovery that brought the row from shadow.events into production.
                             ADD COLUMN recovery_id bigint;

-- What the platform delivers while the old pipeline is production.
CREATE SCHEMA shadow;
CREATE TABLE shadow.events (LIKE analytics.events INCLUDING ALL) PARTITION BY RANGE (received_at);

-- Made beside its parent and attached, which waits for nobody: as PARTITION OF it would wait for whoever reads the
-- parent, and the gateway behind it.
CREATE FUNCTION control.add_partition(parent regclass, part text, from_at timestamptz, to_at timestamptz)
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('CREATE TABLE %s (LIKE %s INCLUDING ALL)', part, parent);
    EXECUTE format('ALTER TABLE %s ATTACH PARTITION %s FOR VALUES FROM (%L) TO (%L)', parent, part, from_at, to_at);
END $$;

CREATE OR REPLACE FUNCTION queue.open_hour(an_hour timestamptz) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    part text := 'queue.batches_' || to_char(an_hour AT TIME ZONE 'UTC', 'YYYYMMDD_HH24');
BEGIN
    IF EXISTS (SELECT FROM queue.hours WHERE hour = an_hour AND dropped_at IS NULL) THEN
        RETURN;
    END IF;
    PERFORM pg_advisory_xact_lock(hashtext('queue.open_hour'));
    IF to_regclass(part) IS NULL THEN
        PERFORM control.add_partition('queue.batches', part, an_hour, an_hour + interval '1 hour');
    END IF;
    PERFORM analytics.open_day((an_hour AT TIME ZONE 'UTC')::date);
    INSERT INTO queue.hours (hour) VALUES (an_hour)
    ON CONFLICT (hour) DO UPDATE SET dropped_at = NULL, sealed_at = NULL;
END $$;

CREATE OR REPLACE FUNCTION analytics.open_day(a_day date) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    part text := 'events_' || to_char(a_day, 'YYYYMMDD');
    a_schema text;
BEGIN
    IF to_regclass('analytics.' || part) IS NOT NULL AND to_regclass('shadow.' || part) IS NOT NULL THEN
        RETURN;
    END IF;
    PERFORM pg_advisory_xact_lock(hashtext('analytics.open_day'));
    FOREACH a_schema IN ARRAY ARRAY['analytics', 'shadow'] LOOP
        IF to_regclass(a_schema || '.' || part) IS NULL THEN
            PERFORM control.add_partition(a_schema || '.events', a_schema || '.' || part,
                                          a_day::timestamp AT TIME ZONE 'UTC', (a_day + 1)::timestamp AT TIME ZONE 'UTC');
        END IF;
    END LOOP;
END $$;

-- For the days that have been opened before.
SELECT analytics.open_day(to_date(right(inhrelid::regclass::text, 8), 'YYYYMMDD'))
FROM pg_inherits WHERE inhparent = 'analytics.events'::regclass;

-- Every row that the platform delivered, in whichever table: what the account is audited against.
CREATE VIEW account.delivered AS
SELECT tenant_id, event_id, message_id, type, name, user_id, anonymous_id, group_id, previous_id, occurred_at, received_at,
       delivered_at, properties, traits, context, batch_id, epoch, recovery_id, false AS is_shadow
FROM analytics.events
UNION ALL
SELECT tenant_id, event_id, message_id, type, name, user_id, anonymous_id, group_id, previous_id, occurred_at, received_at,
       delivered_at, properties, traits, context, batch_id, epoch, recovery_id, true
FROM shadow.events;

-- Batches that the mirror has still to forward; a row is deleted when its fate is known.
CREATE TABLE queue.mirror (
    mirror_id   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    batch_id    bigint NOT NULL,
    received_at timestamptz NOT NULL,
    events      integer NOT NULL,
    -- Set and committed before the first byte is sent. The old pipeline has no idempotency, so what a mirror that died
    -- may have sent is never sent again: it is counted as lost by the mirror, and recovered where it is missing.
    sending_at  timestamptz
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);

-- The old pipeline: its own table, and what its stages reported.
CREATE SCHEMA legacy;
CREATE TABLE legacy.events (
    tenant_id    integer NOT NULL,
    event_id     uuid NOT NULL,
    message_id   text NOT NULL,
    type         text NOT NULL,
    name         text,
    user_id      text,
    anonymous_id text,
    group_id     text,
    previous_id  text,
    occurred_at  timestamptz NOT NULL,
    arrived_at   timestamptz NOT NULL,
    delivered_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    properties   jsonb,
    traits       jsonb,
    context      jsonb,
    tenant_plan  text,
    user_traits  jsonb
);
-- No uniqueness: what is sent twice is stored twice. The index is for those who look an event up.
CREATE INDEX ON legacy.events (tenant_id, event_id);
CREATE INDEX ON legacy.events (arrived_at);

-- What the old pipeline's stages counted, by the hour of the event's arrival at its gateway. Stages in their order:
-- mirror, gateway, queue, lookup, write.
CREATE TABLE legacy.stage_counts (
    tenant_id integer NOT NULL,
    hour      timestamptz NOT NULL CHECK (hour = date_trunc('hour', hour, 'UTC')),
    stage     text NOT NULL,
    arrived   bigint NOT NULL DEFAULT 0,
    proceeded bigint NOT NULL DEFAULT 0,
    failed    bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant_id, hour, stage)
);

-- Which event a stage reported as lost, and why. What nobody reports (a crash) is found by comparing outputs only.
CREATE TABLE legacy.losses (
    tenant_id integer NOT NULL,
    event_id  uuid NOT NULL,
    stage     text NOT NULL,
    cause     text NOT NULL,
    lost_at   timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX ON legacy.losses (tenant_id, event_id);
CREATE INDEX ON legacy.losses (lost_at);

-- The old pipeline's output, as comparisons and production read it: replaced where it is a table of the user's own.
CREATE VIEW legacy.output AS
SELECT tenant_id, event_id, message_id, type, name, user_id, anonymous_id, group_id, previous_id, occurred_at,
       arrived_at AS received_at, delivered_at, properties, traits, context
FROM legacy.events;

-- Production while and after moving over: the platform's rows, and the old pipeline's of events that the platform has
-- not delivered into production itself.
CREATE VIEW analytics.production AS
SELECT 'platform' AS pipeline, tenant_id, event_id, message_id, type, name, user_id, anonymous_id, group_id, previous_id,
       occurred_at, received_at, delivered_at, properties, traits, context
FROM analytics.events
UNION ALL
SELECT * FROM (
    -- The first of its rows: an event that was sent twice is there twice.
    SELECT DISTINCT ON (l.tenant_id, l.event_id) 'legacy', l.tenant_id, l.event_id, l.message_id, l.type, l.name,
           l.user_id, l.anonymous_id, l.group_id, l.previous_id, l.occurred_at, l.received_at, l.delivered_at,
           l.properties, l.traits, l.context
    FROM legacy.output AS l
    WHERE NOT EXISTS (SELECT FROM analytics.events AS e WHERE e.tenant_id = l.tenant_id AND e.event_id = l.event_id)
    ORDER BY l.tenant_id, l.event_id, l.delivered_at) AS firsts;

-- As before, with the epoch's stamp and, where it says so, the batch's row for the mirror.
CREATE OR REPLACE FUNCTION queue.accept(
    a_lane queue.lane, p_tenant_ids integer[], p_event_ids uuid[], p_client_ats timestamptz[], p_types "char"[],
    p_lengths integer[], p_envelope_of integer[], p_envelopes bytea[], p_codec text, p_payload bytea,
    r_tenant_ids integer[], r_message_ids text[], r_codes text[], r_messages text[], r_payloads bytea[],
    OUT batch_id bigint, OUT received_at timestamptz
) LANGUAGE plpgsql AS $$
DECLARE
    stamp record;
BEGIN
    received_at := queue.enter_hour();
    IF cardinality(p_tenant_ids) > 0 THEN
        SELECT epoch, is_mirrored INTO stamp FROM control.epochs ORDER BY epoch DESC LIMIT 1;
        batch_id := nextval('queue.batch_ids');
        INSERT INTO queue.batches (batch_id, received_at, lane, events, tenant_ids, event_ids, client_ats, types,
                                   lengths, envelope_of, envelopes, codec, payload, epoch)
        VALUES (batch_id, received_at, a_lane, cardinality(p_tenant_ids), p_tenant_ids, p_event_ids, p_client_ats,
                p_types, p_lengths, p_envelope_of, p_envelopes, p_codec, p_payload, stamp.epoch);
        INSERT INTO queue.work (lane, batch_id, received_at, end_event)
        VALUES (a_lane, batch_id, received_at, cardinality(p_tenant_ids));
        IF stamp.is_mirrored THEN
            INSERT INTO queue.mirror (batch_id, received_at, events)
            VALUES (batch_id, received_at, cardinality(p_tenant_ids));
        END IF;
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

-- Why an hour's batches cannot be dropped yet; NULL: they can. Whoever needs them longer adds a reason here.
CREATE FUNCTION queue.why_kept(an_hour timestamptz, retention interval) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT coalesce(
        (SELECT format('was not sealed %s ago', retention) FROM queue.hours
         WHERE hour = an_hour AND (sealed_at IS NULL OR sealed_at + retention > clock_timestamp())),
        (SELECT format('still has %s pieces of work', count(*)) FROM queue.work
         WHERE received_at >= an_hour AND received_at < an_hour + interval '1 hour' HAVING count(*) > 0),
        (SELECT format('still has %s batches for the mirror', count(*)) FROM queue.mirror
         WHERE received_at >= an_hour AND received_at < an_hour + interval '1 hour' HAVING count(*) > 0))
$$;

-- Drops an hour's batches, or says why not.
CREATE OR REPLACE FUNCTION queue.drop_hour(an_hour timestamptz, retention interval) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    why text;
BEGIN
    IF NOT pg_try_advisory_xact_lock(queue.hour_lock(an_hour)) THEN
        RAISE EXCEPTION 'hour % is being written', an_hour USING ERRCODE = 'object_in_use';
    END IF;
    why := queue.why_kept(an_hour, retention);
    IF why IS NOT NULL THEN
        RAISE EXCEPTION 'hour % %', an_hour, why USING ERRCODE = 'object_in_use';
    END IF;
    EXECUTE format('DROP TABLE IF EXISTS queue.%I', 'batches_' || to_char(an_hour AT TIME ZONE 'UTC', 'YYYYMMDD_HH24'));
    UPDATE queue.hours SET dropped_at = clock_timestamp() WHERE hour = an_hour;
END $$;
