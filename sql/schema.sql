-- The whole schema of the current version. Written by sql/write_schema.py: change sql/migrations or sql/functions.


CREATE SCHEMA account;

CREATE SCHEMA analytics;

CREATE SCHEMA control;

CREATE SCHEMA legacy;

CREATE SCHEMA queue;

CREATE SCHEMA reconcile;

CREATE SCHEMA recovery;

CREATE SCHEMA replay;

CREATE SCHEMA shadow;

CREATE TYPE control.phase AS ENUM (
    'legacy_only',
    'shadow',
    'platform_primary',
    'legacy_off'
);

CREATE TYPE queue.lane AS ENUM (
    'live',
    'overflow',
    'retry',
    'replay'
);

CREATE TYPE replay.action AS ENUM (
    'added',
    'changed',
    'removed'
);

CREATE TYPE replay.state AS ENUM (
    'planned',
    'diffing',
    'diffed',
    'committing',
    'committed',
    'undoing',
    'undone',
    'cancelled'
);

CREATE FUNCTION account.changes_of_day(a_day timestamp with time zone) RETURNS text
    LANGUAGE sql STABLE
    AS $$
    SELECT string_agg(concat_ws('/', c.oid, c.relfilenode, s.n_tup_ins, s.n_tup_upd, s.n_tup_del), ' ' ORDER BY c.oid)
           || ' ' || (SELECT coalesce(stats_reset::text, '') FROM pg_stat_wal)
    FROM unnest(ARRAY['analytics', 'shadow']) AS a_schema
    JOIN pg_class AS c ON c.oid = to_regclass(a_schema || '.events_' || to_char(a_day AT TIME ZONE 'UTC', 'YYYYMMDD'))
    JOIN pg_stat_all_tables AS s ON s.relid = c.oid
    WHERE current_setting('track_counts')::boolean
$$;

CREATE FUNCTION account.fold(most integer DEFAULT 50000) RETURNS bigint
    LANGUAGE plpgsql
    AS $$
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

CREATE FUNCTION account.latency_bounds() RETURNS double precision[]
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN ARRAY[(0.002)::double precision, (0.004)::double precision, (0.006)::double precision, (0.008)::double precision, (0.01)::double precision, (0.012)::double precision, (0.016)::double precision, (0.025)::double precision, (0.05)::double precision, (0.1)::double precision, (0.25)::double precision, (0.5)::double precision, (1)::double precision, (2.5)::double precision, (10)::double precision, (60)::double precision, (300)::double precision, (3600)::double precision];

CREATE FUNCTION account.latency_bucket(seconds double precision) RETURNS smallint
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN (width_bucket((seconds - (0.0000005)::double precision), account.latency_bounds()))::smallint;

CREATE FUNCTION analytics.carry_keys(a_generation integer, most integer) RETURNS boolean
    LANGUAGE plpgsql
    AS $$
DECLARE
    looked_at bigint;
    last_letter bigint;
BEGIN
    WITH letter AS MATERIALIZED (
        SELECT dead_letter_id, tenant_id, event_id FROM queue.dead_letters
        WHERE state IN ('waiting', 'exhausted')
          AND dead_letter_id > (SELECT letters_until FROM analytics.key_generations WHERE generation = a_generation)
        ORDER BY dead_letter_id
        LIMIT most
    ), carried AS (
        INSERT INTO analytics.keys (generation, tenant_id, event_id, received_at)
        SELECT DISTINCT ON (l.tenant_id, l.event_id) (SELECT max(generation) FROM analytics.key_generations),
               l.tenant_id, l.event_id, k.received_at
        FROM letter AS l
        CROSS JOIN LATERAL (SELECT received_at FROM analytics.keys AS own
                            WHERE own.tenant_id = l.tenant_id AND own.event_id = l.event_id
                              AND own.generation = a_generation OFFSET 0) AS k
        ORDER BY l.tenant_id, l.event_id
        ON CONFLICT DO NOTHING
    )
    SELECT count(*), max(dead_letter_id) INTO looked_at, last_letter FROM letter;
    UPDATE analytics.key_generations SET letters_until = coalesce(last_letter, letters_until)
    WHERE generation = a_generation;
    RETURN looked_at < most;
END $$;

CREATE FUNCTION analytics.key_lock() RETURNS bigint
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN ((1)::bigint << 41);

CREATE FUNCTION analytics.mark_folded() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
    INSERT INTO analytics.rollup_marks (tenant_id, received_hour)
    SELECT DISTINCT tenant_id, hour FROM folded WHERE delivered <> 0;
    RETURN NULL;
END $$;

CREATE FUNCTION analytics.open_day(a_day date) RETURNS void
    LANGUAGE plpgsql
    AS $$
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

CREATE FUNCTION analytics.people(a_tenant integer, from_at timestamp with time zone, to_at timestamp with time zone) RETURNS TABLE(hour timestamp with time zone, people bigint)
    LANGUAGE sql STABLE
    AS $$
    SELECT date_trunc('hour', e.occurred_at, 'UTC'),
           count(DISTINCT CASE WHEN e.user_id IS NOT NULL THEN 'u' || e.user_id ELSE 'a' || e.anonymous_id END)
    FROM (SELECT DISTINCT received_hour FROM analytics.rollups AS r
          WHERE r.tenant_id = a_tenant AND r.hour >= date_trunc('hour', from_at, 'UTC') AND r.hour < to_at) AS h
    CROSS JOIN LATERAL (
        SELECT occurred_at, user_id, anonymous_id FROM analytics.events AS own
        WHERE own.tenant_id = a_tenant AND own.received_at >= h.received_hour
          AND own.received_at < h.received_hour + interval '1 hour'
          AND own.occurred_at >= from_at AND own.occurred_at < to_at OFFSET 0) AS e
    GROUP BY GROUPING SETS ((date_trunc('hour', e.occurred_at, 'UTC')), ())
$$;

CREATE FUNCTION analytics.recall_keys(of_tenants integer[], of_events uuid[], since timestamp with time zone, around timestamp with time zone) RETURNS bigint
    LANGUAGE plpgsql
    SET enable_nestloop TO 'off'
    AS $_$
DECLARE
    open_generation integer;
    -- Events that were delivered later have an identity key.
    keyed_since timestamptz;
    left_tenants integer[] := of_tenants;
    left_events uuid[] := of_events;
    a_day date;
    found_now bigint;
    found_all bigint := 0;
BEGIN
    PERFORM pg_advisory_xact_lock_shared(analytics.key_lock());
    SELECT max(generation), min(opened_at) INTO open_generation, keyed_since FROM analytics.key_generations;
    INSERT INTO analytics.keys (generation, tenant_id, event_id, received_at)
    SELECT DISTINCT ON (i.tenant_id, i.event_id) open_generation, i.tenant_id, i.event_id, k.received_at
    FROM unnest(of_tenants, of_events) AS i(tenant_id, event_id)
    CROSS JOIN LATERAL (SELECT received_at FROM analytics.keys AS own
                        WHERE own.tenant_id = i.tenant_id AND own.event_id = i.event_id LIMIT 1) AS k
    ORDER BY i.tenant_id, i.event_id
    ON CONFLICT DO NOTHING;
    FOR a_day IN
        SELECT to_date(right(c.relname, 8), 'YYYYMMDD') AS day
        FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
        WHERE i.inhparent = 'analytics.events'::regclass AND c.relname ~ '^events_\d{8}$'
        ORDER BY abs(to_date(right(c.relname, 8), 'YYYYMMDD') - (around AT TIME ZONE 'UTC')::date)
    LOOP
        CONTINUE WHEN (a_day + 1)::timestamp AT TIME ZONE 'UTC' <= since
                      OR a_day::timestamp AT TIME ZONE 'UTC' >= keyed_since;
        SELECT array_agg(i.tenant_id), array_agg(i.event_id) INTO left_tenants, left_events
        FROM unnest(left_tenants, left_events) AS i(tenant_id, event_id)
        WHERE NOT EXISTS (SELECT FROM analytics.keys AS k
                          WHERE k.generation = open_generation AND k.tenant_id = i.tenant_id
                            AND k.event_id = i.event_id OFFSET 0);
        EXIT WHEN left_tenants IS NULL;
        INSERT INTO analytics.keys (generation, tenant_id, event_id, received_at)
        SELECT DISTINCT ON (d.tenant_id, d.event_id) open_generation, d.tenant_id, d.event_id, d.received_at
        FROM unnest(left_tenants, left_events) AS i(tenant_id, event_id)
        JOIN account.delivered AS d USING (tenant_id, event_id)
        -- The primary key begins with the tenant.
        WHERE d.tenant_id = ANY(left_tenants) AND d.received_at >= greatest(since, a_day::timestamp AT TIME ZONE 'UTC')
          AND d.received_at < least(keyed_since, (a_day + 1)::timestamp AT TIME ZONE 'UTC')
        ORDER BY d.tenant_id, d.event_id, d.received_at
        ON CONFLICT DO NOTHING;
        GET DIAGNOSTICS found_now = ROW_COUNT;
        found_all := found_all + found_now;
    END LOOP;
    RETURN found_all;
END $_$;

CREATE FUNCTION analytics.refresh_rollups(most integer) RETURNS integer
    LANGUAGE plpgsql
    AS $$
DECLARE
    tenants integer[];
    hours timestamptz[];
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'roll-ups are refreshed in read committed transactions only'
            USING ERRCODE = 'invalid_transaction_state';
    END IF;
    IF NOT pg_try_advisory_xact_lock(hashtext('analytics.refresh_rollups')) THEN
        RETURN NULL;
    END IF;
    SELECT array_agg(tenant_id), array_agg(received_hour) INTO tenants, hours
    FROM (SELECT tenant_id, received_hour FROM analytics.rollup_marks
          GROUP BY 1, 2 ORDER BY min(mark_id) LIMIT most) AS oldest;
    IF tenants IS NULL THEN
        RETURN 0;
    END IF;
    DELETE FROM analytics.rollup_marks AS m USING unnest(tenants, hours) AS p(tenant_id, received_hour)
    WHERE m.tenant_id = p.tenant_id AND m.received_hour = p.received_hour;
    WITH pair AS MATERIALIZED (
        SELECT * FROM unnest(tenants, hours) AS p(tenant_id, received_hour)
    ), fresh AS MATERIALIZED (
        SELECT p.tenant_id, e.hour, p.received_hour, e.type, e.name, e.events
        FROM pair AS p
        -- One range of the primary key each, under any settings of the planner.
        CROSS JOIN LATERAL (
            SELECT date_trunc('hour', own.occurred_at, 'UTC') AS hour, own.type, own.name, count(*) AS events
            FROM analytics.events AS own
            WHERE own.tenant_id = p.tenant_id AND own.received_at >= p.received_hour
              AND own.received_at < p.received_hour + interval '1 hour'
            GROUP BY 1, 2, 3) AS e
    ), gone AS (
        DELETE FROM analytics.rollups AS r USING pair AS p
        WHERE r.tenant_id = p.tenant_id AND r.received_hour = p.received_hour
          AND NOT EXISTS (SELECT FROM fresh AS f
                          WHERE f.tenant_id = r.tenant_id AND f.received_hour = r.received_hour AND f.hour = r.hour
                            AND f.type = r.type AND f.name IS NOT DISTINCT FROM r.name)
        RETURNING r.received_hour
    ), put AS (
        INSERT INTO analytics.rollups AS r (tenant_id, hour, received_hour, type, name, events)
        SELECT tenant_id, hour, received_hour, type, name, events FROM fresh
        ON CONFLICT (tenant_id, hour, received_hour, type, name) DO UPDATE SET events = excluded.events
        WHERE r.events <> excluded.events
        RETURNING r.received_hour
    )
    INSERT INTO analytics.rollup_hours AS h (received_hour, changed_at, refreshes)
    SELECT p.received_hour, CASE WHEN c.received_hour IS NOT NULL THEN clock_timestamp() END, 1
    FROM (SELECT DISTINCT received_hour FROM pair) AS p
    LEFT JOIN (SELECT received_hour FROM gone UNION SELECT received_hour FROM put) AS c USING (received_hour)
    ON CONFLICT (received_hour) DO UPDATE
    SET changed_at = coalesce(excluded.changed_at, h.changed_at), refreshes = h.refreshes + 1;
    RETURN cardinality(tenants);
END $$;

CREATE FUNCTION analytics.rotate_keys(span interval, retention interval) RETURNS boolean
    LANGUAGE plpgsql
    SET lock_timeout TO '250ms'
    AS $$
DECLARE
    newest record;
    oldest integer;
    is_due boolean;
    is_open boolean := false;
BEGIN
    SELECT * INTO newest FROM analytics.key_generations ORDER BY generation DESC LIMIT 1;
    SELECT min(generation) INTO oldest FROM analytics.key_generations WHERE closed_at IS NOT NULL;
    is_due := newest.opened_at + span <= clock_timestamp();
    IF NOT is_due AND (oldest IS NULL OR analytics.why_generation_kept(oldest, retention) IS NOT NULL) THEN
        RETURN false;
    END IF;
    -- Waits for all writers of identity keys, so that the statements below see everything that they accepted or
    -- processed.
    PERFORM pg_advisory_xact_lock(analytics.key_lock());
    IF is_due AND NOT EXISTS (SELECT FROM analytics.key_generations WHERE generation > newest.generation) THEN
        EXECUTE format('CREATE TABLE analytics.%I PARTITION OF analytics.keys FOR VALUES IN (%s)',
                       'keys_' || newest.generation + 1, newest.generation + 1);
        UPDATE analytics.key_generations SET closed_at = clock_timestamp() WHERE generation = newest.generation;
        INSERT INTO analytics.key_generations (generation) VALUES (newest.generation + 1);
        is_open := true;
    END IF;
    -- Checked again: another keeper may have dropped the generation, and newer events may need it.
    SELECT min(generation) INTO oldest FROM analytics.key_generations WHERE closed_at IS NOT NULL;
    IF oldest IS NOT NULL AND analytics.why_generation_kept(oldest, retention) IS NULL
       AND analytics.carry_keys(oldest, 5000) THEN
        DELETE FROM analytics.key_generations WHERE generation = oldest;
        EXECUTE format('DROP TABLE analytics.%I', 'keys_' || oldest);
    END IF;
    RETURN is_open;
END $$;

CREATE FUNCTION analytics.why_generation_kept(a_generation integer, retention interval) RETURNS text
    LANGUAGE sql STABLE
    AS $$
    SELECT coalesce(
        CASE WHEN g.closed_at IS NULL THEN 'is open'
             WHEN g.closed_at + retention <= clock_timestamp() THEN NULL
             ELSE format('was not closed %s ago', retention) END,
        (SELECT format('is needed by %s kept hours, the oldest is %s', count(*), min(hour)) FROM queue.hours
         WHERE dropped_at IS NULL AND coalesce(opened_at, '-infinity') < g.closed_at HAVING count(*) > 0),
        -- Accepted while the generation had to be kept, and not yet compared with it.
        (SELECT format('is needed by %s pieces of work, the oldest is of %s', count(*), min(received_at)) FROM queue.work
         WHERE received_at < g.closed_at + retention HAVING count(*) > 0))
    FROM analytics.key_generations AS g WHERE g.generation = a_generation
$$;

CREATE FUNCTION control.add_partition(parent regclass, part text, from_at timestamp with time zone, to_at timestamp with time zone) RETURNS void
    LANGUAGE plpgsql
    AS $$
BEGIN
    EXECUTE format('CREATE TABLE %s (LIKE %s INCLUDING ALL)', part, parent);
    EXECUTE format('ALTER TABLE %s ATTACH PARTITION %s FOR VALUES FROM (%L) TO (%L)', parent, part, from_at, to_at);
END $$;

CREATE FUNCTION control.erasure_lock() RETURNS bigint
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN ((1)::bigint << 42);

CREATE FUNCTION control.id_hash(a_tenant integer, an_id text) RETURNS bytea
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN sha256(convert_to(((a_tenant || ':'::text) || an_id), 'UTF8'::name));

CREATE FUNCTION control.is_theirs(a_user_id text, an_anonymous_id text, a_previous_id text, users text[], anonymous text[]) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN (COALESCE((a_user_id = ANY (users)), false) OR COALESCE((a_previous_id = ANY ((users || anonymous))), false) OR ((COALESCE(btrim(a_user_id, ' 	
'::text), ''::text) = ''::text) AND COALESCE((an_anonymous_id = ANY (anonymous)), false)));

CREATE FUNCTION control.known_id(an_id text) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN NULLIF(btrim(an_id, ' 	
'::text), ''::text);

CREATE FUNCTION control.note_alert() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
    INSERT INTO control.alert_notifications (alert_id, change)
    VALUES (NEW.alert_id, CASE WHEN NEW.resolved_at IS NULL THEN 'opened' ELSE 'resolved' END);
    RETURN NULL;
END $$;

CREATE FUNCTION legacy.event_id_of(message_id text) RETURNS uuid
    LANGUAGE plpgsql STABLE STRICT PARALLEL SAFE
    AS $_$
BEGIN
    IF message_id ~ '^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$' THEN
        RETURN message_id::uuid;
    END IF;
    RETURN (SELECT i.event_id FROM legacy.identities AS i
            WHERE i.message_hash = sha256(convert_to(event_id_of.message_id, 'UTF8')));
END $_$;

CREATE FUNCTION queue.accept(a_lane queue.lane, p_tenant_ids integer[], p_event_ids uuid[], p_client_ats timestamp with time zone[], p_types "char"[], p_lengths integer[], p_envelope_of integer[], p_envelopes bytea[], p_codec text, p_payload bytea, r_tenant_ids integer[], r_message_ids text[], r_codes text[], r_messages text[], r_payloads bytea[], OUT batch_id bigint, OUT received_at timestamp with time zone) RETURNS record
    LANGUAGE plpgsql
    AS $$
DECLARE
    stamp record;
BEGIN
    received_at := queue.enter_hour();
    IF cardinality(p_tenant_ids) > 0 THEN
        SELECT epoch, is_mirrored INTO stamp FROM control.epochs ORDER BY epoch DESC LIMIT 1;
        batch_id := nextval('queue.batch_ids');
        INSERT INTO queue.batches (batch_id, received_at, lane, events, tenant_ids, event_ids, client_ats, types,
                                   lengths, envelope_of, envelopes, codec, payload, epoch, identities)
        VALUES (batch_id, received_at, a_lane, cardinality(p_tenant_ids), p_tenant_ids, p_event_ids, p_client_ats,
                p_types, p_lengths, p_envelope_of, p_envelopes, p_codec, p_payload, stamp.epoch,
                (SELECT bit_xor(uuid_hash_extended(event_id, tenant_id))
                 FROM unnest(p_tenant_ids, p_event_ids) AS i(tenant_id, event_id)));
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

CREATE FUNCTION queue.drop_archived_hour(an_hour timestamp with time zone, retention interval) RETURNS void
    LANGUAGE plpgsql
    AS $$
BEGIN
    IF NOT queue.is_archived(an_hour) THEN
        RAISE EXCEPTION 'hour % is not archived', an_hour USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    PERFORM queue.drop_hour(an_hour, retention);
END $$;

CREATE FUNCTION queue.drop_hour(an_hour timestamp with time zone, retention interval) RETURNS void
    LANGUAGE plpgsql
    SET lock_timeout TO '250ms'
    AS $$
DECLARE
    why text;
    newest bigint;
    unwatched interval;
BEGIN
    IF NOT pg_try_advisory_xact_lock(queue.hour_lock(an_hour)) THEN
        RAISE EXCEPTION 'hour % is being written', an_hour USING ERRCODE = 'object_in_use';
    END IF;
    why := queue.why_kept(an_hour, retention);
    IF why IS NOT NULL THEN
        RAISE EXCEPTION 'hour % %', an_hour, why USING ERRCODE = 'object_in_use';
    END IF;
    SELECT queue.unwatched_since(sealed_at) INTO unwatched FROM queue.hours
    WHERE hour = an_hour AND sealed_at + retention + queue.unwatched_since(sealed_at) > clock_timestamp();
    IF FOUND THEN
        RAISE EXCEPTION 'hour % was not sealed % ago: the clock moved by % while no keeper looked', an_hour, retention,
            unwatched USING ERRCODE = 'object_in_use';
    END IF;
    SELECT max(batch_id) INTO newest FROM queue.batches
    WHERE received_at >= an_hour AND received_at < an_hour + interval '1 hour';
    EXECUTE format('DROP TABLE IF EXISTS queue.%I', 'batches_' || to_char(an_hour AT TIME ZONE 'UTC', 'YYYYMMDD_HH24'));
    UPDATE queue.hours SET dropped_at = clock_timestamp(), last_batch = newest WHERE hour = an_hour;
END $$;

CREATE FUNCTION queue.enter_hour() RETURNS timestamp with time zone
    LANGUAGE plpgsql
    AS $$
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

CREATE FUNCTION queue.hour_lock(an_hour timestamp with time zone) RETURNS bigint
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN (((EXTRACT(epoch FROM an_hour) / (3600)::numeric))::bigint + ((1)::bigint << 40));

CREATE FUNCTION queue.import_batch(an_import text, an_hour timestamp with time zone, a_chunk integer, p_received_ats timestamp with time zone[], p_tenant_ids integer[], p_event_ids uuid[], p_client_ats timestamp with time zone[], p_types "char"[], p_lengths integer[], p_envelope_of integer[], p_envelopes bytea[], p_codec text, p_payload bytea, r_received_ats timestamp with time zone[], r_tenant_ids integer[], r_message_ids text[], r_codes text[], r_messages text[], r_payloads bytea[]) RETURNS boolean
    LANGUAGE plpgsql
    AS $$
DECLARE
    new_batch_id bigint;
    batch_received_at timestamptz := (SELECT min(at) FROM unnest(p_received_ats) AS at);
BEGIN
    PERFORM pg_advisory_xact_lock_shared(queue.hour_lock(an_hour));
    IF NOT EXISTS (SELECT FROM queue.hours WHERE hour = an_hour AND sealed_at IS NULL AND dropped_at IS NULL) THEN
        RAISE EXCEPTION 'hour % is not open', an_hour USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    IF EXISTS (SELECT FROM unnest(p_received_ats || r_received_ats) AS at
               WHERE date_trunc('hour', at, 'UTC') <> an_hour) THEN
        RAISE EXCEPTION 'a chunk holds events outside of its hour %', an_hour USING ERRCODE = 'check_violation';
    END IF;
    IF cardinality(p_tenant_ids) > 0 THEN
        new_batch_id := nextval('queue.batch_ids');
    END IF;
    INSERT INTO control.import_chunks (import_id, hour, chunk, batch_id, accepted, rejected)
    VALUES (an_import, an_hour, a_chunk, new_batch_id, cardinality(p_tenant_ids), cardinality(r_tenant_ids))
    ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    IF new_batch_id IS NOT NULL THEN
        INSERT INTO queue.batches (batch_id, received_at, lane, events, tenant_ids, event_ids, client_ats, received_ats,
                                   types, lengths, envelope_of, envelopes, codec, payload)
        VALUES (new_batch_id, batch_received_at, 'live', cardinality(p_tenant_ids), p_tenant_ids, p_event_ids,
                p_client_ats, p_received_ats, p_types, p_lengths, p_envelope_of, p_envelopes, p_codec, p_payload);
        INSERT INTO queue.work (lane, batch_id, received_at, end_event)
        VALUES ('live', new_batch_id, batch_received_at, cardinality(p_tenant_ids));
        INSERT INTO account.deltas (tenant_id, hour, lane, received, accepted, in_flight)
        SELECT tenant_id, an_hour, 'live', count(*), count(*), count(*)
        FROM unnest(p_tenant_ids) AS tenant_id GROUP BY tenant_id;
    END IF;
    IF cardinality(r_tenant_ids) > 0 THEN
        INSERT INTO queue.quarantine (tenant_id, received_at, lane, message_id, code, message, payload)
        SELECT r.tenant_id, r.received_at, 'live', r.message_id, r.code, r.message, r.payload
        FROM unnest(r_tenant_ids, r_received_ats, r_message_ids, r_codes, r_messages, r_payloads)
            AS r(tenant_id, received_at, message_id, code, message, payload);
        INSERT INTO account.deltas (tenant_id, hour, lane, received, rejected)
        SELECT tenant_id, an_hour, 'live', count(*), count(*)
        FROM unnest(r_tenant_ids) AS tenant_id GROUP BY tenant_id;
    END IF;
    RETURN true;
END $$;

CREATE TABLE control.import_chunks (
    import_id text NOT NULL,
    hour timestamp with time zone NOT NULL,
    chunk integer NOT NULL,
    batch_id bigint,
    accepted integer NOT NULL,
    rejected integer NOT NULL,
    CONSTRAINT import_chunks_chunk_check CHECK ((chunk >= 0)),
    CONSTRAINT import_chunks_hour_check CHECK ((hour = date_trunc('hour'::text, hour, 'UTC'::text)))
);

CREATE FUNCTION queue.imported_since(since timestamp with time zone) RETURNS bigint[]
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN ARRAY(SELECT import_chunks.batch_id FROM control.import_chunks WHERE ((import_chunks.hour >= date_trunc('hour'::text, imported_since.since, 'UTC'::text)) AND (import_chunks.batch_id IS NOT NULL)));

CREATE FUNCTION queue.is_archived(an_hour timestamp with time zone) RETURNS boolean
    LANGUAGE sql STABLE
    AS $$
    SELECT EXISTS (SELECT FROM control.archives AS a JOIN queue.hours AS h USING (hour)
                   WHERE a.hour = an_hour AND a.seals = h.seals)
$$;

CREATE FUNCTION queue.note_clock(elapsed_s double precision) RETURNS void
    LANGUAGE plpgsql
    AS $$
DECLARE
    last_at timestamptz;
    now_at timestamptz;
    gap interval;
    slack CONSTANT interval := '1 minute';
    passed interval := make_interval(secs => coalesce(elapsed_s, 0));
BEGIN
    SELECT seen_at INTO last_at FROM queue.clock;
    now_at := clock_timestamp();
    IF last_at + interval '5 seconds' > now_at AND last_at - slack < now_at THEN
        RETURN;
    END IF;
    INSERT INTO queue.clock (seen_at) VALUES (now_at) ON CONFLICT DO NOTHING;
    SELECT seen_at INTO last_at FROM queue.clock FOR UPDATE;
    now_at := clock_timestamp();
    gap := now_at - last_at;
    IF gap > slack + passed THEN
        INSERT INTO queue.clock_steps (before_at, moved, is_proved) VALUES (now_at, gap - passed, elapsed_s IS NOT NULL);
    ELSIF gap > slack THEN
        -- The keeper itself was held up for a long time, so the clock was not watched.
        INSERT INTO queue.clock_steps (before_at, moved, is_proved) VALUES (now_at, gap, false);
    ELSIF gap < -slack THEN
        INSERT INTO queue.clock_steps (before_at, moved, is_proved) VALUES (last_at, gap, true);
    END IF;
    UPDATE queue.clock SET seen_at = now_at;
    DELETE FROM queue.clock_steps WHERE greatest(before_at, noted_at) + interval '30 days' < now_at;
END $$;

CREATE FUNCTION queue.open_hour(an_hour timestamp with time zone) RETURNS void
    LANGUAGE plpgsql
    AS $$
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

CREATE FUNCTION queue.prune_discarded(before timestamp with time zone, rows_max integer) RETURNS bigint
    LANGUAGE sql
    AS $$
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

CREATE FUNCTION queue.prune_rejected(before timestamp with time zone, rows_max integer) RETURNS bigint
    LANGUAGE sql
    AS $$
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

CREATE FUNCTION queue.recall_hour(an_hour timestamp with time zone) RETURNS void
    LANGUAGE plpgsql
    AS $$
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

CREATE FUNCTION queue.reopen_hour(an_hour timestamp with time zone) RETURNS boolean
    LANGUAGE plpgsql
    AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared(queue.hour_lock(an_hour));
    IF EXISTS (SELECT FROM queue.hours WHERE hour = an_hour AND dropped_at IS NOT NULL) THEN
        RAISE EXCEPTION 'hour % was dropped', an_hour USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    PERFORM queue.open_hour(an_hour);
    UPDATE queue.hours SET sealed_at = NULL WHERE hour = an_hour AND sealed_at IS NOT NULL;
    RETURN FOUND;
END $$;

CREATE FUNCTION queue.restore_hour(an_hour timestamp with time zone) RETURNS boolean
    LANGUAGE plpgsql
    AS $$
DECLARE
    sealed integer;
BEGIN
    PERFORM pg_advisory_xact_lock_shared(queue.hour_lock(an_hour));
    SELECT seals INTO sealed FROM queue.hours WHERE hour = an_hour AND dropped_at IS NOT NULL;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    PERFORM queue.open_hour(an_hour);
    UPDATE queue.hours SET sealed_at = clock_timestamp(), opened_at = clock_timestamp(), seals = sealed
    WHERE hour = an_hour;
    UPDATE control.archives SET restored_at = clock_timestamp() WHERE hour = an_hour;
    RETURN true;
END $$;

CREATE FUNCTION queue.seal_hour(an_hour timestamp with time zone) RETURNS boolean
    LANGUAGE plpgsql
    AS $$
BEGIN
    IF an_hour + interval '1 hour' > clock_timestamp()
       OR NOT pg_try_advisory_xact_lock(queue.hour_lock(an_hour)) THEN
        RETURN false;
    END IF;
    UPDATE queue.hours SET sealed_at = clock_timestamp(), seals = seals + 1
    WHERE hour = an_hour AND sealed_at IS NULL AND dropped_at IS NULL;
    RETURN EXISTS (SELECT FROM queue.hours WHERE hour = an_hour AND sealed_at IS NOT NULL);
END $$;

CREATE FUNCTION queue.unwatched_since(at timestamp with time zone) RETURNS interval
    LANGUAGE sql STABLE
    AS $$
    SELECT greatest(coalesce(sum(moved), '0'), '0') FROM queue.clock_steps WHERE before_at > at
$$;

CREATE FUNCTION queue.why_kept(an_hour timestamp with time zone, retention interval) RETURNS text
    LANGUAGE sql STABLE
    AS $$
    SELECT coalesce(
        (SELECT format('was not sealed %s ago', retention) FROM queue.hours
         WHERE hour = an_hour AND (sealed_at IS NULL OR sealed_at + retention > clock_timestamp())),
        (SELECT format('still has %s pieces of work', count(*)) FROM queue.work
         WHERE received_at >= an_hour AND received_at < an_hour + interval '1 hour' HAVING count(*) > 0),
        (SELECT format('still has %s batches for the mirror', count(*)) FROM queue.mirror
         WHERE received_at >= an_hour AND received_at < an_hour + interval '1 hour' HAVING count(*) > 0),
        (SELECT format('is needed by replay %s', r.replay_id)
         FROM replay.replays AS r
         WHERE r.state IN ('diffing', 'diffed', 'committing') AND r.pruned_at IS NULL
           AND EXISTS (SELECT FROM replay.chunks AS c WHERE c.replay_id = r.replay_id AND c.hour = an_hour)
         ORDER BY r.replay_id LIMIT 1))
$$;

CREATE FUNCTION queue.writers_of(a_table regclass) RETURNS SETOF text
    LANGUAGE sql
    AS $$
    SELECT virtualtransaction FROM pg_locks
    WHERE locktype = 'relation' AND mode = 'RowExclusiveLock' AND granted AND relation = a_table
      AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
$$;

CREATE FUNCTION reconcile.differing_fields(compared text[], ours jsonb, theirs jsonb) RETURNS TABLE(field text, our_value jsonb, their_value jsonb)
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    BEGIN ATOMIC
 SELECT (c.name || COALESCE(('.'::text || k.key), ''::text)),
     k.ours,
     k.theirs
    FROM ((unnest(differing_fields.compared) c(name)
      CROSS JOIN LATERAL ( SELECT NULLIF((differing_fields.ours -> c.name), 'null'::jsonb) AS ours,
             NULLIF((differing_fields.theirs -> c.name), 'null'::jsonb) AS theirs) v)
      CROSS JOIN LATERAL ( SELECT NULL::text AS key,
             v.ours,
             v.theirs
           WHERE ((jsonb_typeof(COALESCE(v.ours, '{}'::jsonb)) <> 'object'::text) OR (jsonb_typeof(COALESCE(v.theirs, '{}'::jsonb)) <> 'object'::text) OR (COALESCE(v.ours, '{}'::jsonb) = COALESCE(v.theirs, '{}'::jsonb)))
         UNION ALL
          SELECT COALESCE(o.key, t.key) AS "coalesce",
             o.value,
             t.value
            FROM (jsonb_each(
                 CASE jsonb_typeof(v.ours)
                     WHEN 'object'::text THEN v.ours
                     ELSE '{}'::jsonb
                 END) o(key, value)
              FULL JOIN jsonb_each(
                 CASE jsonb_typeof(v.theirs)
                     WHEN 'object'::text THEN v.theirs
                     ELSE '{}'::jsonb
                 END) t(key, value) USING (key))
           WHERE ((jsonb_typeof(COALESCE(v.ours, '{}'::jsonb)) = 'object'::text) AND (jsonb_typeof(COALESCE(v.theirs, '{}'::jsonb)) = 'object'::text))) k)
   WHERE (k.ours IS DISTINCT FROM k.theirs);
END;

CREATE FUNCTION reconcile.digest(compared text[], tenant_id integer, event_id uuid, type text, name text, user_id text, anonymous_id text, group_id text, previous_id text, message_id text, occurred_at timestamp with time zone, properties jsonb, traits jsonb, context jsonb) RETURNS bigint
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN hashint8extended(((((((((((CASE WHEN ('type'::text = ANY (compared)) THEN COALESCE(hashtextextended(type, (1)::bigint), (1)::bigint) ELSE (0)::bigint END # CASE WHEN ('name'::text = ANY (compared)) THEN COALESCE(hashtextextended(name, (2)::bigint), (2)::bigint) ELSE (0)::bigint END) # CASE WHEN ('user_id'::text = ANY (compared)) THEN COALESCE(hashtextextended(user_id, (3)::bigint), (3)::bigint) ELSE (0)::bigint END) # CASE WHEN ('anonymous_id'::text = ANY (compared)) THEN COALESCE(hashtextextended(anonymous_id, (4)::bigint), (4)::bigint) ELSE (0)::bigint END) # CASE WHEN ('group_id'::text = ANY (compared)) THEN COALESCE(hashtextextended(group_id, (5)::bigint), (5)::bigint) ELSE (0)::bigint END) # CASE WHEN ('previous_id'::text = ANY (compared)) THEN COALESCE(hashtextextended(previous_id, (6)::bigint), (6)::bigint) ELSE (0)::bigint END) # CASE WHEN ('message_id'::text = ANY (compared)) THEN COALESCE(hashtextextended(message_id, (7)::bigint), (7)::bigint) ELSE (0)::bigint END) # CASE WHEN ('occurred_at'::text = ANY (compared)) THEN COALESCE(timestamp_hash_extended((occurred_at AT TIME ZONE 'UTC'::text), (8)::bigint), (8)::bigint) ELSE (0)::bigint END) # CASE WHEN ('properties'::text = ANY (compared)) THEN COALESCE(hashtextextended((properties)::text, (9)::bigint), (9)::bigint) ELSE (0)::bigint END) # CASE WHEN ('traits'::text = ANY (compared)) THEN COALESCE(hashtextextended((traits)::text, (10)::bigint), (10)::bigint) ELSE (0)::bigint END) # CASE WHEN ('context'::text = ANY (compared)) THEN COALESCE(hashtextextended((context)::text, (11)::bigint), (11)::bigint) ELSE (0)::bigint END), uuid_hash_extended(event_id, (tenant_id)::bigint));

CREATE FUNCTION reconcile.keep_digest() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
    NEW.digest := reconcile.digest(
        reconcile.kept_columns(), NEW.tenant_id, NEW.event_id, NEW.type, NEW.name, NEW.user_id, NEW.anonymous_id,
        NEW.group_id, NEW.previous_id, NEW.message_id, NEW.occurred_at, NEW.properties, NEW.traits, NEW.context);
    RETURN NEW;
END $$;

CREATE FUNCTION reconcile.kept_columns() RETURNS text[]
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN ARRAY['type'::text, 'name'::text, 'user_id'::text, 'anonymous_id'::text, 'properties'::text, 'traits'::text, 'context'::text];

CREATE FUNCTION reconcile.place(tenant_id integer, event_id uuid, bits integer) RETURNS bigint
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN (((tenant_id)::bigint << bits) | (uuid_hash_extended(event_id, (0)::bigint) & (((1 << bits) - 1))::bigint));

CREATE FUNCTION reconcile.shape(value jsonb) RETURNS jsonb
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN jsonb_build_object('type', COALESCE(jsonb_typeof(value), 'absent'::text), 'length', COALESCE(length((value #>> '{}'::text[])), 0));

CREATE FUNCTION replay.changed_keys(prefix text, one jsonb, other jsonb) RETURNS text[]
    LANGUAGE sql IMMUTABLE
    RETURN CASE WHEN (((one IS NULL) AND (other IS NULL)) OR ((one)::text = (other)::text)) THEN ARRAY[]::text[] WHEN ((COALESCE(jsonb_typeof(one), 'object'::text) <> 'object'::text) OR (COALESCE(jsonb_typeof(other), 'object'::text) <> 'object'::text)) THEN ARRAY[prefix] ELSE COALESCE((SELECT array_agg(((changed_keys.prefix || '.'::text) || COALESCE(a.key, b.key)) ORDER BY COALESCE(a.key, b.key)) AS array_agg FROM (jsonb_each(COALESCE(changed_keys.one, '{}'::jsonb)) a(key, value) FULL JOIN jsonb_each(COALESCE(changed_keys.other, '{}'::jsonb)) b(key, value) USING (key)) WHERE ((a.value)::text IS DISTINCT FROM (b.value)::text)), ARRAY[prefix]) END;

CREATE FUNCTION replay.is_erased(a_tenant integer, an_event uuid, a_received_at timestamp with time zone, a_row jsonb) RETURNS boolean
    LANGUAGE sql STABLE
    AS $$
    SELECT EXISTS (SELECT FROM control.erased_events WHERE tenant_id = a_tenant AND event_id = an_event)
        OR EXISTS (
            SELECT FROM (VALUES ('user', a_row ->> 'user_id'), ('user', a_row ->> 'previous_id'),
                                ('anonymous', a_row ->> 'previous_id'),
                                ('anonymous', CASE WHEN control.known_id(a_row ->> 'user_id') IS NULL THEN a_row ->> 'anonymous_id' END))
                AS id(kind, value)
            JOIN control.tombstones AS t
              ON t.tenant_id = a_tenant AND t.kind = id.kind AND t.id_hash = control.id_hash(a_tenant, id.value)
            WHERE a_received_at < t.erased_at)
$$;

CREATE FUNCTION replay.missing_events(an_hour timestamp with time zone) RETURNS bigint
    LANGUAGE sql STABLE
    AS $$
    SELECT coalesce((SELECT sum(accepted) FROM account.funnel WHERE hour = an_hour AND lane <> 'replay'), 0)::bigint
           - coalesce((SELECT sum(events) FROM queue.batches
                       WHERE received_at >= an_hour AND received_at < an_hour + interval '1 hour'), 0)::bigint
$$;

CREATE FUNCTION replay.prune(retention interval, rows_max integer) RETURNS bigint
    LANGUAGE plpgsql
    AS $$
DECLARE
    diffs bigint;
    images bigint;
BEGIN
    UPDATE replay.replays SET pruned_at = clock_timestamp() WHERE replay_id IN (
        SELECT replay_id FROM replay.replays
        WHERE pruned_at IS NULL AND state IN ('planned', 'diffed', 'committed', 'undone', 'cancelled')
          AND greatest(created_at, diffed_at, committed_at, undone_at) + retention < clock_timestamp()
        FOR UPDATE SKIP LOCKED);
    DELETE FROM replay.scratch WHERE ctid = ANY(ARRAY(
        SELECT s.ctid FROM replay.replays AS r JOIN replay.scratch AS s USING (replay_id)
        WHERE r.pruned_at IS NOT NULL LIMIT rows_max));
    GET DIAGNOSTICS diffs = ROW_COUNT;
    DELETE FROM replay.before_images WHERE ctid = ANY(ARRAY(
        SELECT i.ctid FROM replay.replays AS r JOIN replay.before_images AS i USING (replay_id)
        WHERE r.pruned_at IS NOT NULL LIMIT rows_max));
    GET DIAGNOSTICS images = ROW_COUNT;
    RETURN diffs + images;
END $$;

CREATE FUNCTION replay.require_whole_diff() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
    IF EXISTS (SELECT FROM replay.chunks WHERE replay_id = NEW.replay_id
                                           AND (diffed_at IS NULL OR read_events IS NULL OR read_events < events)) THEN
        RAISE EXCEPTION 'the diff of replay % is not complete', NEW.replay_id
            USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    RETURN NEW;
END $$;

CREATE FUNCTION replay.unreadable_hours(a_replay bigint, all_chunks boolean) RETURNS TABLE(hour timestamp with time zone, planned bigint, kept bigint)
    LANGUAGE sql STABLE
    AS $$
    SELECT need.hour, greatest(need.planned, found.kept + lost.events), found.kept
    FROM (SELECT c.hour, sum(c.events) FILTER (WHERE NOT c.is_sweep)::bigint AS planned, bool_or(c.is_sweep) AS is_swept
          FROM replay.chunks AS c
          WHERE c.replay_id = a_replay AND (all_chunks OR EXISTS (
              SELECT FROM replay.chunks AS o WHERE o.replay_id = a_replay AND o.hour = c.hour AND NOT o.is_done))
          GROUP BY c.hour) AS own
    CROSS JOIN LATERAL (SELECT own.hour, coalesce(own.planned, 0) AS planned, own.is_swept) AS need
    JOIN replay.replays AS r ON r.replay_id = a_replay
    CROSS JOIN LATERAL (
        SELECT coalesce(sum(b.events), 0)::bigint AS kept FROM queue.batches AS b
        WHERE b.received_at >= need.hour AND b.received_at < need.hour + interval '1 hour'
          AND (r.tenant_ids IS NULL OR b.tenant_ids && r.tenant_ids)) AS found
    CROSS JOIN LATERAL (
        SELECT CASE WHEN need.is_swept THEN replay.missing_events(need.hour) ELSE 0 END AS events) AS lost
    LEFT JOIN queue.hours AS h ON h.hour = need.hour
    WHERE found.kept < need.planned OR lost.events <> 0 OR h.dropped_at IS NOT NULL
    ORDER BY need.hour
$$;

CREATE TABLE account.counters (
    tenant_id integer NOT NULL,
    hour timestamp with time zone NOT NULL,
    lane queue.lane NOT NULL,
    received bigint DEFAULT 0 NOT NULL,
    accepted bigint DEFAULT 0 NOT NULL,
    rejected bigint DEFAULT 0 NOT NULL,
    claimed bigint DEFAULT 0 NOT NULL,
    enriched bigint DEFAULT 0 NOT NULL,
    delivered bigint DEFAULT 0 NOT NULL,
    duplicate bigint DEFAULT 0 NOT NULL,
    dead_lettered bigint DEFAULT 0 NOT NULL,
    discarded bigint DEFAULT 0 NOT NULL,
    in_flight bigint DEFAULT 0 NOT NULL,
    CONSTRAINT counters_hour_check CHECK ((hour = date_trunc('hour'::text, hour, 'UTC'::text)))
);

CREATE TABLE analytics.events (
    tenant_id integer NOT NULL,
    event_id uuid NOT NULL,
    message_id text NOT NULL,
    type text NOT NULL,
    name text,
    user_id text,
    anonymous_id text,
    group_id text,
    previous_id text,
    occurred_at timestamp with time zone NOT NULL,
    received_at timestamp with time zone NOT NULL,
    delivered_at timestamp with time zone NOT NULL,
    properties jsonb,
    traits jsonb,
    context jsonb,
    tenant_name text,
    tenant_plan text,
    user_traits jsonb,
    group_traits jsonb,
    batch_id bigint NOT NULL,
    epoch integer DEFAULT 1 NOT NULL,
    recovery_id bigint,
    replay_id bigint,
    digest bigint,
    rest jsonb,
    CONSTRAINT events_type_check CHECK ((type = ANY (ARRAY['track'::text, 'identify'::text, 'page'::text, 'screen'::text, 'group'::text, 'alias'::text])))
)
PARTITION BY RANGE (received_at);

CREATE TABLE shadow.events (
    tenant_id integer NOT NULL,
    event_id uuid NOT NULL,
    message_id text NOT NULL,
    type text NOT NULL,
    name text,
    user_id text,
    anonymous_id text,
    group_id text,
    previous_id text,
    occurred_at timestamp with time zone NOT NULL,
    received_at timestamp with time zone NOT NULL,
    delivered_at timestamp with time zone NOT NULL,
    properties jsonb,
    traits jsonb,
    context jsonb,
    tenant_name text,
    tenant_plan text,
    user_traits jsonb,
    group_traits jsonb,
    batch_id bigint NOT NULL,
    epoch integer DEFAULT 1 NOT NULL,
    recovery_id bigint,
    replay_id bigint,
    digest bigint,
    rest jsonb,
    CONSTRAINT events_type_check CHECK ((type = ANY (ARRAY['track'::text, 'identify'::text, 'page'::text, 'screen'::text, 'group'::text, 'alias'::text])))
)
PARTITION BY RANGE (received_at);

CREATE VIEW account.delivered AS
 SELECT events.tenant_id,
    events.event_id,
    events.message_id,
    events.type,
    events.name,
    events.user_id,
    events.anonymous_id,
    events.group_id,
    events.previous_id,
    events.occurred_at,
    events.received_at,
    events.delivered_at,
    events.properties,
    events.traits,
    events.context,
    events.batch_id,
    events.epoch,
    events.recovery_id,
    false AS is_shadow,
    events.digest
   FROM analytics.events
UNION ALL
 SELECT events.tenant_id,
    events.event_id,
    events.message_id,
    events.type,
    events.name,
    events.user_id,
    events.anonymous_id,
    events.group_id,
    events.previous_id,
    events.occurred_at,
    events.received_at,
    events.delivered_at,
    events.properties,
    events.traits,
    events.context,
    events.batch_id,
    events.epoch,
    events.recovery_id,
    true AS is_shadow,
    events.digest
   FROM shadow.events;

CREATE TABLE account.deltas (
    tenant_id integer CONSTRAINT counters_tenant_id_not_null NOT NULL,
    hour timestamp with time zone CONSTRAINT counters_hour_not_null NOT NULL,
    lane queue.lane CONSTRAINT counters_lane_not_null NOT NULL,
    received bigint DEFAULT 0 CONSTRAINT counters_received_not_null NOT NULL,
    accepted bigint DEFAULT 0 CONSTRAINT counters_accepted_not_null NOT NULL,
    rejected bigint DEFAULT 0 CONSTRAINT counters_rejected_not_null NOT NULL,
    claimed bigint DEFAULT 0 CONSTRAINT counters_claimed_not_null NOT NULL,
    enriched bigint DEFAULT 0 CONSTRAINT counters_enriched_not_null NOT NULL,
    delivered bigint DEFAULT 0 CONSTRAINT counters_delivered_not_null NOT NULL,
    duplicate bigint DEFAULT 0 CONSTRAINT counters_duplicate_not_null NOT NULL,
    dead_lettered bigint DEFAULT 0 CONSTRAINT counters_dead_lettered_not_null NOT NULL,
    discarded bigint DEFAULT 0 CONSTRAINT counters_discarded_not_null NOT NULL,
    in_flight bigint DEFAULT 0 CONSTRAINT counters_in_flight_not_null NOT NULL
)
WITH (autovacuum_vacuum_scale_factor='0', autovacuum_vacuum_threshold='20000');

CREATE VIEW account.funnel AS
 SELECT tenant_id,
    hour,
    lane,
    (sum(received))::bigint AS received,
    (sum(accepted))::bigint AS accepted,
    (sum(rejected))::bigint AS rejected,
    (sum(claimed))::bigint AS claimed,
    (sum(enriched))::bigint AS enriched,
    (sum(delivered))::bigint AS delivered,
    (sum(duplicate))::bigint AS duplicate,
    (sum(dead_lettered))::bigint AS dead_lettered,
    (sum(discarded))::bigint AS discarded,
    (sum(in_flight))::bigint AS in_flight
   FROM ( SELECT counters.tenant_id,
            counters.hour,
            counters.lane,
            counters.received,
            counters.accepted,
            counters.rejected,
            counters.claimed,
            counters.enriched,
            counters.delivered,
            counters.duplicate,
            counters.dead_lettered,
            counters.discarded,
            counters.in_flight
           FROM account.counters
        UNION ALL
         SELECT deltas.tenant_id,
            deltas.hour,
            deltas.lane,
            deltas.received,
            deltas.accepted,
            deltas.rejected,
            deltas.claimed,
            deltas.enriched,
            deltas.delivered,
            deltas.duplicate,
            deltas.dead_lettered,
            deltas.discarded,
            deltas.in_flight
           FROM account.deltas) both_parts
  GROUP BY tenant_id, hour, lane;

CREATE TABLE account.latencies (
    lane queue.lane NOT NULL,
    bucket smallint NOT NULL,
    events bigint NOT NULL,
    seconds double precision NOT NULL
)
WITH (fillfactor='50');

CREATE TABLE account.latency_deltas (
    lane queue.lane NOT NULL,
    bucket smallint NOT NULL,
    events bigint NOT NULL,
    seconds double precision NOT NULL
)
WITH (autovacuum_vacuum_scale_factor='0', autovacuum_vacuum_threshold='20000');

CREATE VIEW account.latency AS
 SELECT lane,
    bucket,
    (sum(events))::bigint AS events,
    sum(seconds) AS seconds
   FROM ( SELECT latencies.lane,
            latencies.bucket,
            latencies.events,
            latencies.seconds
           FROM account.latencies
        UNION ALL
         SELECT latency_deltas.lane,
            latency_deltas.bucket,
            latency_deltas.events,
            latency_deltas.seconds
           FROM account.latency_deltas) both_parts
  GROUP BY lane, bucket;

CREATE TABLE account.production_days (
    day timestamp with time zone NOT NULL,
    changes text,
    counted_at timestamp with time zone NOT NULL,
    CONSTRAINT production_days_day_check CHECK ((day = date_trunc('day'::text, day, 'UTC'::text)))
);

CREATE TABLE account.production_hours (
    tenant_id integer NOT NULL,
    hour timestamp with time zone NOT NULL,
    production bigint NOT NULL,
    shadow bigint NOT NULL,
    identities bigint NOT NULL,
    agrees boolean NOT NULL,
    CONSTRAINT production_hours_hour_check CHECK ((hour = date_trunc('hour'::text, hour, 'UTC'::text)))
);

CREATE TABLE account.totals (
    tenant_id integer NOT NULL,
    received bigint NOT NULL,
    accepted bigint NOT NULL,
    rejected bigint NOT NULL,
    claimed bigint NOT NULL,
    enriched bigint NOT NULL,
    delivered bigint NOT NULL,
    duplicate bigint NOT NULL,
    dead_lettered bigint NOT NULL,
    discarded bigint NOT NULL,
    in_flight bigint NOT NULL,
    CONSTRAINT totals_accepted_check CHECK ((accepted >= 0)),
    CONSTRAINT totals_claimed_check CHECK ((claimed >= 0)),
    CONSTRAINT totals_dead_lettered_check CHECK ((dead_lettered >= 0)),
    CONSTRAINT totals_delivered_check CHECK ((delivered >= 0)),
    CONSTRAINT totals_discarded_check CHECK ((discarded >= 0)),
    CONSTRAINT totals_duplicate_check CHECK ((duplicate >= 0)),
    CONSTRAINT totals_enriched_check CHECK ((enriched >= 0)),
    CONSTRAINT totals_received_check CHECK ((received >= 0)),
    CONSTRAINT totals_rejected_check CHECK ((rejected >= 0))
)
WITH (fillfactor='50', autovacuum_vacuum_scale_factor='0', autovacuum_vacuum_threshold='2000');

CREATE VIEW account.running_totals AS
 SELECT tenant_id,
    (sum(received))::bigint AS received,
    (sum(accepted))::bigint AS accepted,
    (sum(rejected))::bigint AS rejected,
    (sum(claimed))::bigint AS claimed,
    (sum(enriched))::bigint AS enriched,
    (sum(delivered))::bigint AS delivered,
    (sum(duplicate))::bigint AS duplicate,
    (sum(dead_lettered))::bigint AS dead_lettered,
    (sum(discarded))::bigint AS discarded,
    (sum(in_flight))::bigint AS in_flight
   FROM ( SELECT totals.tenant_id,
            totals.received,
            totals.accepted,
            totals.rejected,
            totals.claimed,
            totals.enriched,
            totals.delivered,
            totals.duplicate,
            totals.dead_lettered,
            totals.discarded,
            totals.in_flight
           FROM account.totals
        UNION ALL
         SELECT deltas.tenant_id,
            GREATEST(deltas.received, (0)::bigint) AS "greatest",
            GREATEST(deltas.accepted, (0)::bigint) AS "greatest",
            GREATEST(deltas.rejected, (0)::bigint) AS "greatest",
            GREATEST(deltas.claimed, (0)::bigint) AS "greatest",
            GREATEST(deltas.enriched, (0)::bigint) AS "greatest",
            GREATEST(deltas.delivered, (0)::bigint) AS "greatest",
            GREATEST(deltas.duplicate, (0)::bigint) AS "greatest",
            GREATEST(deltas.dead_lettered, (0)::bigint) AS "greatest",
            GREATEST(deltas.discarded, (0)::bigint) AS "greatest",
            deltas.in_flight
           FROM account.deltas) both_parts
  GROUP BY tenant_id;

CREATE TABLE analytics.key_generations (
    generation integer NOT NULL,
    opened_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    closed_at timestamp with time zone,
    letters_until bigint DEFAULT 0 NOT NULL
);

CREATE TABLE analytics.keys (
    generation integer NOT NULL,
    tenant_id integer NOT NULL,
    event_id uuid NOT NULL,
    received_at timestamp with time zone NOT NULL
)
PARTITION BY LIST (generation);

CREATE TABLE analytics.keys_1 (
    generation integer CONSTRAINT keys_generation_not_null NOT NULL,
    tenant_id integer CONSTRAINT keys_tenant_id_not_null NOT NULL,
    event_id uuid CONSTRAINT keys_event_id_not_null NOT NULL,
    received_at timestamp with time zone CONSTRAINT keys_received_at_not_null NOT NULL
);

CREATE TABLE control.erasures (
    erasure_id bigint NOT NULL,
    tenant_id integer NOT NULL,
    subject_hash bytea NOT NULL,
    reason text NOT NULL,
    actor text NOT NULL,
    erased_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    finished_at timestamp with time zone,
    counts jsonb DEFAULT '{}'::jsonb NOT NULL,
    CONSTRAINT erasures_reason_check CHECK ((reason <> ''::text)),
    CONSTRAINT erasures_subject_hash_check CHECK ((octet_length(subject_hash) = 32))
);

CREATE TABLE legacy.events (
    tenant_id integer NOT NULL,
    event_id uuid NOT NULL,
    message_id text NOT NULL,
    type text NOT NULL,
    name text,
    user_id text,
    anonymous_id text,
    group_id text,
    previous_id text,
    occurred_at timestamp with time zone NOT NULL,
    arrived_at timestamp with time zone NOT NULL,
    delivered_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    properties jsonb,
    traits jsonb,
    context jsonb,
    tenant_plan text,
    user_traits jsonb,
    digest bigint
);

CREATE VIEW legacy.output AS
 SELECT tenant_id,
    event_id,
    message_id,
    type,
    name,
    user_id,
    anonymous_id,
    group_id,
    previous_id,
    occurred_at,
    arrived_at AS received_at,
    delivered_at,
    properties,
    traits,
    context,
    digest
   FROM legacy.events;

CREATE VIEW analytics.production AS
 SELECT 'platform'::text AS pipeline,
    events.tenant_id,
    events.event_id,
    events.message_id,
    events.type,
    events.name,
    events.user_id,
    events.anonymous_id,
    events.group_id,
    events.previous_id,
    events.occurred_at,
    events.received_at,
    events.delivered_at,
    events.properties,
    events.traits,
    events.context
   FROM analytics.events
UNION ALL
 SELECT firsts."?column?" AS pipeline,
    firsts.tenant_id,
    firsts.event_id,
    firsts.message_id,
    firsts.type,
    firsts.name,
    firsts.user_id,
    firsts.anonymous_id,
    firsts.group_id,
    firsts.previous_id,
    firsts.occurred_at,
    firsts.received_at,
    firsts.delivered_at,
    firsts.properties,
    firsts.traits,
    firsts.context
   FROM ( SELECT DISTINCT ON (l.tenant_id, l.event_id) 'legacy'::text AS "?column?",
            l.tenant_id,
            l.event_id,
            l.message_id,
            l.type,
            l.name,
            l.user_id,
            l.anonymous_id,
            l.group_id,
            l.previous_id,
            l.occurred_at,
            l.received_at,
            l.delivered_at,
            l.properties,
            l.traits,
            l.context
           FROM legacy.output l
          WHERE ((l.tenant_id IS NOT NULL) AND (l.event_id IS NOT NULL) AND (NOT (EXISTS ( SELECT
                   FROM analytics.events e
                  WHERE ((e.tenant_id = l.tenant_id) AND (e.event_id = l.event_id))))) AND (( SELECT (NOT (EXISTS ( SELECT
                           FROM control.erasures)))) OR (NOT replay.is_erased(l.tenant_id, l.event_id, l.received_at, jsonb_build_object('user_id', l.user_id, 'anonymous_id', l.anonymous_id, 'previous_id', l.previous_id)))))
          ORDER BY l.tenant_id, l.event_id, l.delivered_at) firsts;

CREATE TABLE analytics.rollup_hours (
    received_hour timestamp with time zone NOT NULL,
    changed_at timestamp with time zone,
    checked_at timestamp with time zone,
    refreshes bigint DEFAULT 0 NOT NULL
);

CREATE TABLE analytics.rollup_marks (
    mark_id bigint NOT NULL,
    tenant_id integer NOT NULL,
    received_hour timestamp with time zone NOT NULL
)
WITH (autovacuum_vacuum_scale_factor='0', autovacuum_vacuum_threshold='20000');

ALTER TABLE analytics.rollup_marks ALTER COLUMN mark_id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME analytics.rollup_marks_mark_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE analytics.rollups (
    tenant_id integer NOT NULL,
    hour timestamp with time zone NOT NULL,
    received_hour timestamp with time zone NOT NULL,
    type text NOT NULL,
    name text,
    events bigint NOT NULL,
    CONSTRAINT rollups_events_check CHECK ((events > 0)),
    CONSTRAINT rollups_hour_check CHECK ((hour = date_trunc('hour'::text, hour, 'UTC'::text))),
    CONSTRAINT rollups_received_hour_check CHECK ((received_hour = date_trunc('hour'::text, received_hour, 'UTC'::text)))
);

CREATE VIEW analytics.unrolled AS
 SELECT rollup_marks.tenant_id,
    rollup_marks.received_hour
   FROM analytics.rollup_marks
UNION
 SELECT deltas.tenant_id,
    deltas.hour AS received_hour
   FROM account.deltas
  WHERE (deltas.delivered <> 0);

CREATE TABLE control.alert_channels (
    channel text NOT NULL,
    failures integer DEFAULT 0 NOT NULL,
    failing_since timestamp with time zone,
    next_send_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    last_error text,
    sent_at timestamp with time zone,
    CONSTRAINT alert_channels_check CHECK (((failures > 0) = (failing_since IS NOT NULL)))
);

CREATE TABLE control.alert_deliveries (
    channel text NOT NULL,
    notification_id bigint NOT NULL,
    sent_at timestamp with time zone
);

CREATE TABLE control.alert_notifications (
    notification_id bigint NOT NULL,
    alert_id bigint NOT NULL,
    change text NOT NULL,
    noted_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    is_addressed boolean DEFAULT false NOT NULL,
    CONSTRAINT alert_notifications_change_check CHECK ((change = ANY (ARRAY['opened'::text, 'resolved'::text])))
);

ALTER TABLE control.alert_notifications ALTER COLUMN notification_id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME control.alert_notifications_notification_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE control.alert_progress (
    name text NOT NULL,
    value bigint NOT NULL,
    since timestamp with time zone DEFAULT clock_timestamp() NOT NULL
);

CREATE TABLE control.alerts (
    alert_id bigint NOT NULL,
    kind text NOT NULL,
    fingerprint text NOT NULL,
    tenant_id integer,
    message text NOT NULL,
    occurrences bigint DEFAULT 1 NOT NULL,
    opened_at timestamp with time zone DEFAULT now() NOT NULL,
    last_seen_at timestamp with time zone DEFAULT now() NOT NULL,
    resolved_at timestamp with time zone,
    sample_id text
);

ALTER TABLE control.alerts ALTER COLUMN alert_id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME control.alerts_alert_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE control.archives (
    hour timestamp with time zone NOT NULL,
    address text NOT NULL,
    events bigint NOT NULL,
    bytes bigint NOT NULL,
    sha256 text NOT NULL,
    seals integer NOT NULL,
    archived_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    verified_at timestamp with time zone NOT NULL,
    restored_at timestamp with time zone,
    CONSTRAINT archives_events_check CHECK ((events >= 0)),
    CONSTRAINT archives_hour_check CHECK ((hour = date_trunc('hour'::text, hour, 'UTC'::text))),
    CONSTRAINT archives_sha256_check CHECK ((length(sha256) = 64))
);

CREATE TABLE control.audit_log (
    entry_id bigint NOT NULL,
    at timestamp with time zone DEFAULT now() NOT NULL,
    actor text NOT NULL,
    action text NOT NULL,
    reason text NOT NULL,
    detail jsonb DEFAULT '{}'::jsonb NOT NULL
);

ALTER TABLE control.audit_log ALTER COLUMN entry_id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME control.audit_log_entry_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE control.cache_key (
    only_row boolean DEFAULT true NOT NULL,
    key bytea NOT NULL,
    CONSTRAINT cache_key_key_check CHECK ((octet_length(key) = 32)),
    CONSTRAINT cache_key_only_row_check CHECK (only_row)
);

CREATE TABLE control.circuits (
    circuit_id bigint NOT NULL,
    opened_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    message text NOT NULL,
    closed_at timestamp with time zone,
    reason text
);

ALTER TABLE control.circuits ALTER COLUMN circuit_id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME control.circuits_circuit_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE control.commit_probes (
    prober text NOT NULL,
    committed_at timestamp with time zone NOT NULL,
    CONSTRAINT commit_probes_prober_check CHECK ((prober <> ''::text))
)
WITH (fillfactor='50');

CREATE TABLE control.epochs (
    epoch integer NOT NULL,
    phase control.phase NOT NULL,
    opened_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    is_shadow boolean GENERATED ALWAYS AS ((phase = ANY (ARRAY['legacy_only'::control.phase, 'shadow'::control.phase]))) STORED NOT NULL,
    is_mirrored boolean GENERATED ALWAYS AS ((phase <> 'legacy_off'::control.phase)) STORED NOT NULL
);

CREATE TABLE control.erased_events (
    tenant_id integer NOT NULL,
    batch_id bigint NOT NULL,
    event_index integer NOT NULL,
    event_id uuid NOT NULL,
    batch_received_at timestamp with time zone NOT NULL,
    was text NOT NULL,
    erasure_id bigint NOT NULL,
    CONSTRAINT erased_events_event_index_check CHECK ((event_index >= '-1'::integer)),
    CONSTRAINT erased_events_was_check CHECK ((was = ANY (ARRAY['delivered'::text, 'dead_lettered'::text, 'in_flight'::text, 'duplicate'::text, 'discarded'::text])))
);

ALTER TABLE control.erasures ALTER COLUMN erasure_id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME control.erasures_erasure_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE control.exports (
    hour timestamp with time zone NOT NULL,
    version integer NOT NULL,
    address text NOT NULL,
    begun_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    published_at timestamp with time zone,
    file text,
    events bigint,
    bytes bigint,
    sha256 text,
    refreshes bigint,
    removed_at timestamp with time zone,
    CONSTRAINT exports_check CHECK (((published_at IS NULL) = (sha256 IS NULL))),
    CONSTRAINT exports_events_check CHECK ((events >= 0)),
    CONSTRAINT exports_hour_check CHECK ((hour = date_trunc('hour'::text, hour, 'UTC'::text))),
    CONSTRAINT exports_sha256_check CHECK ((length(sha256) = 64)),
    CONSTRAINT exports_version_check CHECK ((version > 0))
);

CREATE TABLE control.imports (
    import_id text NOT NULL,
    source text NOT NULL,
    shift interval NOT NULL,
    started_at timestamp with time zone NOT NULL,
    finished_at timestamp with time zone,
    CONSTRAINT imports_import_id_check CHECK ((length(import_id) = 64))
);

CREATE TABLE control.lane_limits (
    lane queue.lane NOT NULL,
    share double precision NOT NULL,
    cap double precision NOT NULL,
    CONSTRAINT lane_limits_check CHECK (((cap > (0)::double precision) AND (cap <= (1)::double precision) AND (cap >= share))),
    CONSTRAINT lane_limits_share_check CHECK (((share > (0)::double precision) AND (share <= (1)::double precision)))
);

CREATE TABLE control.legacy_keys (
    tenant_id integer NOT NULL,
    write_key text NOT NULL
);

CREATE TABLE control.legacy_target (
    only_row boolean DEFAULT true NOT NULL,
    forward_url text,
    headers jsonb DEFAULT '{}'::jsonb NOT NULL,
    retries integer DEFAULT 0 NOT NULL,
    timeout_s double precision DEFAULT 5 NOT NULL,
    requests_at_once integer DEFAULT 32 NOT NULL,
    give_up_s double precision DEFAULT 3600 NOT NULL,
    settle_s double precision DEFAULT 300 NOT NULL,
    compared text[] DEFAULT ARRAY['type'::text, 'name'::text, 'user_id'::text, 'anonymous_id'::text, 'properties'::text, 'traits'::text, 'context'::text] NOT NULL,
    output_table text,
    configured_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT legacy_target_give_up_s_check CHECK ((give_up_s > (0)::double precision)),
    CONSTRAINT legacy_target_only_row_check CHECK (only_row),
    CONSTRAINT legacy_target_requests_at_once_check CHECK (((requests_at_once >= 1) AND (requests_at_once <= 1000))),
    CONSTRAINT legacy_target_retries_check CHECK (((retries >= 0) AND (retries <= 10))),
    CONSTRAINT legacy_target_settle_s_check CHECK ((settle_s >= (0)::double precision)),
    CONSTRAINT legacy_target_timeout_s_check CHECK ((timeout_s > (0)::double precision))
);

CREATE TABLE control.sensor_ticks (
    name text NOT NULL,
    interval_s double precision,
    ticked_at timestamp with time zone,
    error text,
    reported_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL
);

CREATE TABLE control.tenants (
    tenant_id integer NOT NULL,
    name text NOT NULL,
    plan text DEFAULT 'free'::text NOT NULL,
    events_per_s integer,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT tenants_events_per_s_check CHECK ((events_per_s > 0)),
    CONSTRAINT tenants_name_can_be_seen CHECK (((name ~ '\S'::text) AND (name !~ '[\u0001-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb]'::text))),
    CONSTRAINT tenants_name_check CHECK (((length(name) >= 1) AND (length(name) <= 200)))
);

ALTER TABLE control.tenants ALTER COLUMN tenant_id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME control.tenants_tenant_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE control.tombstones (
    tenant_id integer NOT NULL,
    kind text NOT NULL,
    id_hash bytea NOT NULL,
    erased_at timestamp with time zone NOT NULL,
    erasure_id bigint NOT NULL,
    CONSTRAINT tombstones_id_hash_check CHECK ((octet_length(id_hash) = 32)),
    CONSTRAINT tombstones_kind_check CHECK ((kind = ANY (ARRAY['user'::text, 'anonymous'::text])))
);

CREATE TABLE control.traits (
    tenant_id integer NOT NULL,
    kind text NOT NULL,
    subject_id text NOT NULL,
    name text NOT NULL,
    value jsonb NOT NULL,
    as_of timestamp with time zone NOT NULL,
    event_id uuid NOT NULL,
    CONSTRAINT traits_kind_check CHECK ((kind = ANY (ARRAY['user'::text, 'group'::text])))
);

CREATE TABLE control.transforms (
    since timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    version text NOT NULL
);

CREATE TABLE control.write_keys (
    key_id integer NOT NULL,
    key_hash bytea NOT NULL,
    tenant_id integer NOT NULL,
    label text DEFAULT ''::text NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    revoked_at timestamp with time zone,
    CONSTRAINT write_keys_key_hash_check CHECK ((octet_length(key_hash) = 32))
);

ALTER TABLE control.write_keys ALTER COLUMN key_id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME control.write_keys_key_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE legacy.identities (
    message_hash bytea NOT NULL,
    event_id uuid NOT NULL
);

CREATE TABLE legacy.losses (
    tenant_id integer NOT NULL,
    event_id uuid NOT NULL,
    stage text NOT NULL,
    cause text NOT NULL,
    lost_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    acknowledged_at timestamp with time zone
);

CREATE TABLE legacy.stage_counts (
    tenant_id integer NOT NULL,
    hour timestamp with time zone NOT NULL,
    stage text NOT NULL,
    arrived bigint DEFAULT 0 NOT NULL,
    proceeded bigint DEFAULT 0 NOT NULL,
    failed bigint DEFAULT 0 NOT NULL,
    CONSTRAINT stage_counts_hour_check CHECK ((hour = date_trunc('hour'::text, hour, 'UTC'::text)))
);

CREATE SEQUENCE queue.batch_ids
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;

CREATE TABLE queue.batches (
    batch_id bigint NOT NULL,
    received_at timestamp with time zone NOT NULL,
    lane queue.lane NOT NULL,
    events integer NOT NULL,
    tenant_ids integer[] NOT NULL,
    event_ids uuid[] NOT NULL,
    client_ats timestamp with time zone[] NOT NULL,
    received_ats timestamp with time zone[],
    types "char"[] NOT NULL,
    lengths integer[] NOT NULL,
    envelope_of integer[],
    envelopes bytea[],
    codec text NOT NULL,
    payload bytea NOT NULL,
    epoch integer DEFAULT 1 NOT NULL,
    identities bigint,
    CONSTRAINT batches_check CHECK (((cardinality(tenant_ids) = events) AND (cardinality(event_ids) = events) AND (cardinality(client_ats) = events) AND (cardinality(types) = events) AND (cardinality(lengths) = events) AND ((received_ats IS NULL) OR (cardinality(received_ats) = events)) AND ((envelope_of IS NULL) OR (cardinality(envelope_of) = events)))),
    CONSTRAINT batches_codec_check CHECK ((codec = ANY (ARRAY['plain'::text, 'zstd'::text]))),
    CONSTRAINT batches_events_check CHECK ((events > 0))
)
PARTITION BY RANGE (received_at);
ALTER TABLE ONLY queue.batches ALTER COLUMN event_ids SET STORAGE EXTERNAL;
ALTER TABLE ONLY queue.batches ALTER COLUMN client_ats SET STORAGE EXTERNAL;
ALTER TABLE ONLY queue.batches ALTER COLUMN payload SET STORAGE EXTERNAL;

CREATE TABLE queue.chores (
    name text NOT NULL,
    done_at timestamp with time zone,
    late_after interval NOT NULL,
    failing_since timestamp with time zone,
    last_error text,
    CONSTRAINT chores_check CHECK (((failing_since IS NULL) = (last_error IS NULL)))
);

CREATE TABLE queue.clock (
    is_only boolean DEFAULT true NOT NULL,
    seen_at timestamp with time zone NOT NULL,
    CONSTRAINT clock_is_only_check CHECK (is_only)
);

CREATE TABLE queue.clock_steps (
    step_id bigint NOT NULL,
    before_at timestamp with time zone NOT NULL,
    moved interval NOT NULL,
    is_proved boolean NOT NULL,
    noted_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL
);

ALTER TABLE queue.clock_steps ALTER COLUMN step_id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME queue.clock_steps_step_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE queue.dead_letters (
    tenant_id integer NOT NULL,
    dead_letter_id bigint NOT NULL,
    event_id uuid NOT NULL,
    message_id text,
    type "char" NOT NULL,
    lane queue.lane NOT NULL,
    batch_id bigint NOT NULL,
    event_index integer NOT NULL,
    batch_received_at timestamp with time zone NOT NULL,
    received_at timestamp with time zone NOT NULL,
    client_at timestamp with time zone,
    envelope bytea,
    payload bytea NOT NULL,
    failed_in text NOT NULL,
    error_class text NOT NULL,
    error text NOT NULL,
    fingerprint text NOT NULL,
    state text NOT NULL,
    attempts smallint NOT NULL,
    next_attempt_at timestamp with time zone,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    resolved_at timestamp with time zone,
    reason text,
    epoch integer DEFAULT 1 NOT NULL,
    deaths smallint DEFAULT 0 NOT NULL,
    CONSTRAINT dead_letters_attempts_check CHECK (((attempts >= 1) AND (attempts <= 100))),
    CONSTRAINT dead_letters_check CHECK (((state = 'waiting'::text) = (next_attempt_at IS NOT NULL))),
    CONSTRAINT dead_letters_check1 CHECK (((state = ANY (ARRAY['delivered'::text, 'duplicate'::text, 'discarded'::text])) = (resolved_at IS NOT NULL))),
    CONSTRAINT dead_letters_check2 CHECK (((state <> 'discarded'::text) OR (reason IS NOT NULL))),
    CONSTRAINT dead_letters_failed_in_check CHECK ((failed_in = ANY (ARRAY['claim'::text, 'enrich'::text, 'transform'::text, 'load'::text]))),
    CONSTRAINT dead_letters_state_check CHECK ((state = ANY (ARRAY['waiting'::text, 'exhausted'::text, 'delivered'::text, 'duplicate'::text, 'discarded'::text])))
);

ALTER TABLE queue.dead_letters ALTER COLUMN dead_letter_id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME queue.dead_letters_dead_letter_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE VIEW queue.encoded_batches AS
 SELECT batch_id,
    received_at,
    (lane)::text AS lane,
    events,
    array_send(tenant_ids) AS tenant_ids,
    array_send(event_ids) AS event_ids,
    array_send(client_ats) AS client_ats,
    array_send(types) AS types,
    array_send(lengths) AS lengths,
    array_send(received_ats) AS received_ats,
    envelope_of,
    envelopes,
    codec,
    payload,
    epoch,
    ( SELECT e.is_shadow
           FROM control.epochs e
          WHERE (e.epoch = b.epoch)) AS is_shadow
   FROM queue.batches b;

CREATE VIEW queue.events AS
 SELECT b.batch_id,
    ((e."position")::integer - 1) AS event_index,
    b.lane,
    e.tenant_id,
    e.event_id,
    e.type,
    e.client_at,
    COALESCE(e.own_received_at, b.received_at) AS received_at,
    b.received_at AS batch_received_at,
    e.length AS bytes
   FROM (queue.batches b
     CROSS JOIN LATERAL UNNEST(b.tenant_ids, b.event_ids, b.types, b.client_ats, b.lengths, b.received_ats) WITH ORDINALITY e(tenant_id, event_id, type, client_at, length, own_received_at, "position"));

CREATE TABLE queue.hours (
    hour timestamp with time zone NOT NULL,
    sealed_at timestamp with time zone,
    seals integer DEFAULT 0 NOT NULL,
    dropped_at timestamp with time zone,
    opened_at timestamp with time zone DEFAULT clock_timestamp(),
    last_batch bigint,
    CONSTRAINT hours_hour_check CHECK ((hour = date_trunc('hour'::text, hour, 'UTC'::text)))
);

CREATE TABLE queue.mirror (
    mirror_id bigint NOT NULL,
    batch_id bigint NOT NULL,
    received_at timestamp with time zone NOT NULL,
    events integer NOT NULL,
    sending_at timestamp with time zone
)
WITH (autovacuum_vacuum_scale_factor='0', autovacuum_vacuum_threshold='5000');

ALTER TABLE queue.mirror ALTER COLUMN mirror_id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME queue.mirror_mirror_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE queue.pruned (
    tenant_id integer NOT NULL,
    hour timestamp with time zone NOT NULL,
    lane queue.lane NOT NULL,
    outcome text NOT NULL,
    failed_in text NOT NULL,
    cause text NOT NULL,
    fingerprint text DEFAULT ''::text NOT NULL,
    events bigint NOT NULL,
    CONSTRAINT pruned_events_check CHECK ((events > 0)),
    CONSTRAINT pruned_hour_check CHECK ((hour = date_trunc('hour'::text, hour, 'UTC'::text))),
    CONSTRAINT pruned_outcome_check CHECK ((outcome = ANY (ARRAY['rejected'::text, 'discarded'::text])))
);

CREATE TABLE queue.quarantine (
    tenant_id integer NOT NULL,
    quarantine_id bigint NOT NULL,
    received_at timestamp with time zone NOT NULL,
    lane queue.lane NOT NULL,
    message_id text,
    code text NOT NULL,
    message text NOT NULL,
    payload bytea NOT NULL,
    readmitted_at timestamp with time zone
);

ALTER TABLE queue.quarantine ALTER COLUMN quarantine_id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME queue.quarantine_quarantine_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE queue.work (
    lane queue.lane NOT NULL,
    work_id bigint NOT NULL,
    batch_id bigint NOT NULL,
    received_at timestamp with time zone NOT NULL,
    first_event integer DEFAULT 0 NOT NULL,
    end_event integer NOT NULL,
    deaths smallint DEFAULT 0 NOT NULL,
    CONSTRAINT work_check CHECK (((first_event >= 0) AND (end_event > first_event)))
)
WITH (fillfactor='80', autovacuum_vacuum_scale_factor='0', autovacuum_vacuum_threshold='5000');

ALTER TABLE queue.work ALTER COLUMN work_id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME queue.work_work_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE queue.worker_deaths (
    died_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    slot integer NOT NULL,
    status integer NOT NULL
);

CREATE TABLE reconcile.differences (
    window_start timestamp with time zone NOT NULL,
    window_end timestamp with time zone NOT NULL,
    tenant_id integer NOT NULL,
    event_id uuid NOT NULL,
    kind text NOT NULL,
    stage text,
    fields jsonb,
    samples jsonb,
    received_at timestamp with time zone,
    CONSTRAINT differences_kind_check CHECK ((kind = ANY (ARRAY['dropped'::text, 'extra'::text, 'missing'::text, 'mismatched'::text])))
);

CREATE TABLE reconcile.results (
    window_start timestamp with time zone NOT NULL,
    window_end timestamp with time zone NOT NULL,
    tenant_id integer NOT NULL,
    accepted bigint DEFAULT 0 NOT NULL,
    platform bigint DEFAULT 0 NOT NULL,
    legacy bigint DEFAULT 0 NOT NULL,
    matched bigint DEFAULT 0 NOT NULL,
    mismatched bigint DEFAULT 0 NOT NULL,
    dropped bigint DEFAULT 0 NOT NULL,
    extra bigint DEFAULT 0 NOT NULL,
    missing bigint DEFAULT 0 NOT NULL,
    duplicates bigint DEFAULT 0 NOT NULL,
    recovered bigint DEFAULT 0 NOT NULL
);

CREATE TABLE reconcile.windows (
    window_start timestamp with time zone NOT NULL,
    window_end timestamp with time zone NOT NULL,
    reconciled_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    is_settled boolean NOT NULL,
    seconds double precision NOT NULL,
    coverage jsonb NOT NULL,
    CONSTRAINT windows_check CHECK ((window_end > window_start))
);

CREATE TABLE recovery.moves (
    recovery_id bigint NOT NULL,
    tenant_id integer NOT NULL,
    hour timestamp with time zone NOT NULL,
    events bigint NOT NULL,
    moved_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT moves_hour_check CHECK ((hour = date_trunc('hour'::text, hour, 'UTC'::text)))
);

CREATE TABLE recovery.runs (
    recovery_id bigint NOT NULL,
    window_start timestamp with time zone NOT NULL,
    window_end timestamp with time zone NOT NULL,
    actor text DEFAULT CURRENT_USER NOT NULL,
    reason text NOT NULL,
    started_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    finished_at timestamp with time zone,
    CONSTRAINT runs_check CHECK ((window_end > window_start))
);

ALTER TABLE recovery.runs ALTER COLUMN recovery_id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME recovery.runs_recovery_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE replay.before_images (
    replay_id bigint NOT NULL,
    chunk integer NOT NULL,
    tenant_id integer NOT NULL,
    event_id uuid NOT NULL,
    received_at timestamp with time zone NOT NULL,
    action replay.action NOT NULL,
    is_shadow boolean NOT NULL,
    had_key boolean NOT NULL,
    dead_letter_id bigint,
    "row" jsonb,
    is_restored boolean DEFAULT false NOT NULL,
    kept_newer boolean DEFAULT false NOT NULL
);

CREATE TABLE replay.chunks (
    replay_id bigint NOT NULL,
    chunk integer NOT NULL,
    hour timestamp with time zone NOT NULL,
    is_sweep boolean NOT NULL,
    first_batch bigint NOT NULL,
    last_batch bigint NOT NULL,
    events bigint NOT NULL,
    is_done boolean DEFAULT false NOT NULL,
    times_taken smallint DEFAULT 0 NOT NULL,
    taken_by integer,
    taken_since timestamp with time zone,
    diffed_at timestamp with time zone,
    committed_at timestamp with time zone,
    undone_at timestamp with time zone,
    read_events bigint,
    seen_batches bigint
);

CREATE TABLE replay.counts (
    replay_id bigint NOT NULL,
    chunk integer NOT NULL,
    tenant_id integer NOT NULL,
    hour timestamp with time zone NOT NULL,
    events bigint DEFAULT 0 NOT NULL,
    added bigint DEFAULT 0 NOT NULL,
    changed bigint DEFAULT 0 NOT NULL,
    removed bigint DEFAULT 0 NOT NULL,
    unchanged bigint DEFAULT 0 NOT NULL,
    duplicate bigint DEFAULT 0 NOT NULL,
    discarded bigint DEFAULT 0 NOT NULL,
    failed bigint DEFAULT 0 NOT NULL
);

CREATE TABLE replay.replays (
    replay_id bigint NOT NULL,
    window_start timestamp with time zone NOT NULL,
    window_end timestamp with time zone NOT NULL,
    tenant_ids integer[],
    types text[],
    only_missing boolean DEFAULT false NOT NULL,
    state replay.state DEFAULT 'planned'::replay.state NOT NULL,
    is_paused boolean DEFAULT false NOT NULL,
    takes_newer boolean DEFAULT false NOT NULL,
    planned_events bigint NOT NULL,
    transform_from text[] DEFAULT '{}'::text[] NOT NULL,
    transform_to text,
    actor text NOT NULL,
    reason text NOT NULL,
    created_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    step_began_at timestamp with time zone,
    diffed_at timestamp with time zone,
    committed_at timestamp with time zone,
    undone_at timestamp with time zone,
    pruned_at timestamp with time zone,
    paused_because text,
    CONSTRAINT replays_check CHECK ((window_end > window_start)),
    CONSTRAINT replays_reason_check CHECK ((reason <> ''::text))
);

ALTER TABLE replay.replays ALTER COLUMN replay_id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME replay.replays_replay_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE replay.scratch (
    replay_id bigint NOT NULL,
    chunk integer NOT NULL,
    tenant_id integer NOT NULL,
    event_id uuid NOT NULL,
    received_at timestamp with time zone NOT NULL,
    action replay.action NOT NULL,
    is_shadow boolean NOT NULL,
    fields text[],
    before_hash uuid,
    "row" jsonb NOT NULL,
    committed_as text,
    CONSTRAINT scratch_committed_as_check CHECK ((committed_as = ANY (ARRAY['added'::text, 'changed'::text, 'removed'::text, 'skipped'::text])))
);

ALTER TABLE ONLY analytics.keys ATTACH PARTITION analytics.keys_1 FOR VALUES IN (1);

ALTER TABLE ONLY account.counters
    ADD CONSTRAINT counters_pkey PRIMARY KEY (tenant_id, hour, lane);

ALTER TABLE ONLY account.latencies
    ADD CONSTRAINT latencies_pkey PRIMARY KEY (lane, bucket);

ALTER TABLE ONLY account.production_days
    ADD CONSTRAINT production_days_pkey PRIMARY KEY (day);

ALTER TABLE ONLY account.production_hours
    ADD CONSTRAINT production_hours_pkey PRIMARY KEY (hour, tenant_id);

ALTER TABLE ONLY account.totals
    ADD CONSTRAINT totals_pkey PRIMARY KEY (tenant_id);

ALTER TABLE ONLY analytics.events
    ADD CONSTRAINT events_pkey PRIMARY KEY (tenant_id, received_at, event_id);

ALTER TABLE ONLY analytics.key_generations
    ADD CONSTRAINT key_generations_pkey PRIMARY KEY (generation);

ALTER TABLE ONLY analytics.keys
    ADD CONSTRAINT keys_pkey PRIMARY KEY (tenant_id, event_id, generation);

ALTER TABLE ONLY analytics.keys_1
    ADD CONSTRAINT keys_1_pkey PRIMARY KEY (tenant_id, event_id, generation);

ALTER TABLE ONLY analytics.rollup_hours
    ADD CONSTRAINT rollup_hours_pkey PRIMARY KEY (received_hour);

ALTER TABLE ONLY analytics.rollup_marks
    ADD CONSTRAINT rollup_marks_pkey PRIMARY KEY (mark_id);

ALTER TABLE ONLY analytics.rollups
    ADD CONSTRAINT rollups_tenant_id_hour_received_hour_type_name_key UNIQUE NULLS NOT DISTINCT (tenant_id, hour, received_hour, type, name);

ALTER TABLE ONLY control.alert_channels
    ADD CONSTRAINT alert_channels_pkey PRIMARY KEY (channel);

ALTER TABLE ONLY control.alert_deliveries
    ADD CONSTRAINT alert_deliveries_pkey PRIMARY KEY (channel, notification_id);

ALTER TABLE ONLY control.alert_notifications
    ADD CONSTRAINT alert_notifications_alert_id_change_key UNIQUE (alert_id, change);

ALTER TABLE ONLY control.alert_notifications
    ADD CONSTRAINT alert_notifications_pkey PRIMARY KEY (notification_id);

ALTER TABLE ONLY control.alert_progress
    ADD CONSTRAINT alert_progress_pkey PRIMARY KEY (name);

ALTER TABLE ONLY control.alerts
    ADD CONSTRAINT alerts_pkey PRIMARY KEY (alert_id);

ALTER TABLE ONLY control.archives
    ADD CONSTRAINT archives_pkey PRIMARY KEY (hour);

ALTER TABLE ONLY control.audit_log
    ADD CONSTRAINT audit_log_pkey PRIMARY KEY (entry_id);

ALTER TABLE ONLY control.cache_key
    ADD CONSTRAINT cache_key_pkey PRIMARY KEY (only_row);

ALTER TABLE ONLY control.circuits
    ADD CONSTRAINT circuits_pkey PRIMARY KEY (circuit_id);

ALTER TABLE ONLY control.commit_probes
    ADD CONSTRAINT commit_probes_pkey PRIMARY KEY (prober);

ALTER TABLE ONLY control.epochs
    ADD CONSTRAINT epochs_pkey PRIMARY KEY (epoch);

ALTER TABLE ONLY control.erased_events
    ADD CONSTRAINT erased_events_pkey PRIMARY KEY (tenant_id, batch_id, event_index, event_id);

ALTER TABLE ONLY control.erasures
    ADD CONSTRAINT erasures_pkey PRIMARY KEY (erasure_id);

ALTER TABLE ONLY control.exports
    ADD CONSTRAINT exports_pkey PRIMARY KEY (hour, version);

ALTER TABLE ONLY control.import_chunks
    ADD CONSTRAINT import_chunks_pkey PRIMARY KEY (import_id, hour, chunk);

ALTER TABLE ONLY control.imports
    ADD CONSTRAINT imports_pkey PRIMARY KEY (import_id);

ALTER TABLE ONLY control.lane_limits
    ADD CONSTRAINT lane_limits_pkey PRIMARY KEY (lane);

ALTER TABLE ONLY control.legacy_keys
    ADD CONSTRAINT legacy_keys_pkey PRIMARY KEY (tenant_id);

ALTER TABLE ONLY control.legacy_target
    ADD CONSTRAINT legacy_target_pkey PRIMARY KEY (only_row);

ALTER TABLE ONLY control.sensor_ticks
    ADD CONSTRAINT sensor_ticks_pkey PRIMARY KEY (name);

ALTER TABLE ONLY control.tenants
    ADD CONSTRAINT tenants_name_key UNIQUE (name);

ALTER TABLE ONLY control.tenants
    ADD CONSTRAINT tenants_pkey PRIMARY KEY (tenant_id);

ALTER TABLE ONLY control.tombstones
    ADD CONSTRAINT tombstones_pkey PRIMARY KEY (tenant_id, kind, id_hash);

ALTER TABLE ONLY control.traits
    ADD CONSTRAINT traits_pkey PRIMARY KEY (tenant_id, kind, subject_id, name);

ALTER TABLE ONLY control.transforms
    ADD CONSTRAINT transforms_pkey PRIMARY KEY (since);

ALTER TABLE ONLY control.write_keys
    ADD CONSTRAINT write_keys_key_hash_key UNIQUE (key_hash);

ALTER TABLE ONLY control.write_keys
    ADD CONSTRAINT write_keys_pkey PRIMARY KEY (key_id);

ALTER TABLE ONLY legacy.identities
    ADD CONSTRAINT identities_pkey PRIMARY KEY (message_hash);

ALTER TABLE ONLY legacy.stage_counts
    ADD CONSTRAINT stage_counts_pkey PRIMARY KEY (tenant_id, hour, stage);

ALTER TABLE ONLY queue.batches
    ADD CONSTRAINT batches_pkey PRIMARY KEY (batch_id, received_at);

ALTER TABLE ONLY queue.chores
    ADD CONSTRAINT chores_pkey PRIMARY KEY (name);

ALTER TABLE ONLY queue.clock
    ADD CONSTRAINT clock_pkey PRIMARY KEY (is_only);

ALTER TABLE ONLY queue.clock_steps
    ADD CONSTRAINT clock_steps_pkey PRIMARY KEY (step_id);

ALTER TABLE ONLY queue.dead_letters
    ADD CONSTRAINT dead_letters_pkey PRIMARY KEY (tenant_id, dead_letter_id);

ALTER TABLE ONLY queue.hours
    ADD CONSTRAINT hours_pkey PRIMARY KEY (hour);

ALTER TABLE ONLY queue.mirror
    ADD CONSTRAINT mirror_pkey PRIMARY KEY (mirror_id);

ALTER TABLE ONLY queue.pruned
    ADD CONSTRAINT pruned_pkey PRIMARY KEY (tenant_id, hour, lane, outcome, failed_in, cause, fingerprint);

ALTER TABLE ONLY queue.quarantine
    ADD CONSTRAINT quarantine_pkey PRIMARY KEY (tenant_id, quarantine_id);

ALTER TABLE ONLY queue.work
    ADD CONSTRAINT work_pkey PRIMARY KEY (lane, work_id);

ALTER TABLE ONLY reconcile.differences
    ADD CONSTRAINT differences_pkey PRIMARY KEY (tenant_id, window_start, window_end, kind, event_id);

ALTER TABLE ONLY reconcile.results
    ADD CONSTRAINT results_pkey PRIMARY KEY (tenant_id, window_start, window_end);

ALTER TABLE ONLY reconcile.windows
    ADD CONSTRAINT windows_pkey PRIMARY KEY (window_start, window_end);

ALTER TABLE ONLY recovery.runs
    ADD CONSTRAINT runs_pkey PRIMARY KEY (recovery_id);

ALTER TABLE ONLY replay.before_images
    ADD CONSTRAINT before_images_pkey PRIMARY KEY (replay_id, tenant_id, event_id);

ALTER TABLE ONLY replay.chunks
    ADD CONSTRAINT chunks_pkey PRIMARY KEY (replay_id, chunk);

ALTER TABLE ONLY replay.counts
    ADD CONSTRAINT counts_pkey PRIMARY KEY (replay_id, chunk, tenant_id);

ALTER TABLE ONLY replay.replays
    ADD CONSTRAINT replays_pkey PRIMARY KEY (replay_id);

ALTER TABLE ONLY replay.scratch
    ADD CONSTRAINT scratch_pkey PRIMARY KEY (replay_id, tenant_id, event_id);

ALTER TABLE ONLY shadow.events
    ADD CONSTRAINT events_pkey PRIMARY KEY (tenant_id, received_at, event_id);

CREATE INDEX counters_hour_idx ON account.counters USING btree (hour);

CREATE INDEX rollup_marks_tenant_id_received_hour_idx ON analytics.rollup_marks USING btree (tenant_id, received_hour);

CREATE INDEX rollups_received_hour_tenant_id_idx ON analytics.rollups USING btree (received_hour, tenant_id);

CREATE INDEX alert_deliveries_notification_id_idx ON control.alert_deliveries USING btree (notification_id);

CREATE INDEX deliveries_to_send ON control.alert_deliveries USING btree (channel, notification_id) WHERE (sent_at IS NULL);

CREATE INDEX erased_events_batch_received_at_idx ON control.erased_events USING btree (batch_received_at);

CREATE INDEX erased_events_erasure_id_idx ON control.erased_events USING btree (erasure_id);

CREATE INDEX erased_events_tenant_id_event_id_idx ON control.erased_events USING btree (tenant_id, event_id);

CREATE INDEX notifications_to_address ON control.alert_notifications USING btree (notification_id) WHERE (NOT is_addressed);

CREATE UNIQUE INDEX one_open_alert_a_cause ON control.alerts USING btree (kind, fingerprint, tenant_id) NULLS NOT DISTINCT WHERE (resolved_at IS NULL);

CREATE UNIQUE INDEX one_open_circuit ON control.circuits USING btree ((true)) WHERE (closed_at IS NULL);

CREATE UNIQUE INDEX one_unfinished_erasure_a_person ON control.erasures USING btree (tenant_id, subject_hash) WHERE (finished_at IS NULL);

CREATE INDEX write_keys_tenant_id_idx ON control.write_keys USING btree (tenant_id);

CREATE INDEX events_arrived_at_idx ON legacy.events USING btree (arrived_at);

CREATE INDEX events_tenant_id_event_id_idx ON legacy.events USING btree (tenant_id, event_id);

CREATE INDEX losses_lost_at_idx ON legacy.losses USING btree (lost_at);

CREATE INDEX losses_tenant_id_event_id_idx ON legacy.losses USING btree (tenant_id, event_id);

CREATE INDEX dead_letters_batch_received_at_idx ON queue.dead_letters USING btree (batch_received_at);

CREATE INDEX dead_letters_of_an_event ON queue.dead_letters USING btree (tenant_id, event_id);

CREATE INDEX dead_letters_resolved_at_idx ON queue.dead_letters USING btree (resolved_at) WHERE (resolved_at IS NOT NULL);

CREATE INDEX discarded_dead_letters ON queue.dead_letters USING btree (resolved_at) WHERE (state = 'discarded'::text);

CREATE INDEX exhausted_dead_letters ON queue.dead_letters USING btree (tenant_id, fingerprint) WHERE (state = 'exhausted'::text);

CREATE UNIQUE INDEX one_dead_letter_an_occurrence ON queue.dead_letters USING btree (batch_id, event_index);

CREATE INDEX pruned_hour_idx ON queue.pruned USING btree (hour);

CREATE INDEX quarantine_received_at_idx ON queue.quarantine USING btree (received_at);

CREATE INDEX suspect_work ON queue.work USING btree (work_id) WHERE (deaths > 0);

CREATE INDEX unresolved_dead_letters ON queue.dead_letters USING btree (dead_letter_id) WHERE (state = ANY (ARRAY['waiting'::text, 'exhausted'::text]));

CREATE INDEX waiting_dead_letters ON queue.dead_letters USING btree (next_attempt_at) WHERE (state = 'waiting'::text);

CREATE INDEX worker_deaths_died_at_idx ON queue.worker_deaths USING btree (died_at);

CREATE INDEX differences_window_start_window_end_idx ON reconcile.differences USING btree (window_start, window_end);

CREATE INDEX drifting_results ON reconcile.results USING btree (tenant_id) WHERE (((missing + extra) + mismatched) > 0);

CREATE INDEX results_window_start_window_end_idx ON reconcile.results USING btree (window_start, window_end);

CREATE INDEX moves_recovery_id_idx ON recovery.moves USING btree (recovery_id);

CREATE INDEX before_images_replay_id_chunk_idx ON replay.before_images USING btree (replay_id, chunk);

CREATE INDEX chunks_hour_idx ON replay.chunks USING btree (hour);

CREATE INDEX chunks_to_do ON replay.chunks USING btree (replay_id, chunk) WHERE (NOT is_done);

CREATE INDEX counts_hour_idx ON replay.counts USING btree (hour);

CREATE INDEX scratch_replay_id_chunk_idx ON replay.scratch USING btree (replay_id, chunk);

ALTER INDEX analytics.keys_pkey ATTACH PARTITION analytics.keys_1_pkey;

CREATE TRIGGER mark_rollups AFTER DELETE ON account.deltas REFERENCING OLD TABLE AS folded FOR EACH STATEMENT EXECUTE FUNCTION analytics.mark_folded();

CREATE TRIGGER keep_digest BEFORE UPDATE OF tenant_id, event_id, type, name, user_id, anonymous_id, properties, traits, context, digest ON analytics.events FOR EACH ROW EXECUTE FUNCTION reconcile.keep_digest();

CREATE TRIGGER note_opened AFTER INSERT ON control.alerts FOR EACH ROW EXECUTE FUNCTION control.note_alert();

CREATE TRIGGER note_resolved AFTER UPDATE OF resolved_at ON control.alerts FOR EACH ROW WHEN (((old.resolved_at IS NULL) AND (new.resolved_at IS NOT NULL))) EXECUTE FUNCTION control.note_alert();

CREATE TRIGGER keep_digest BEFORE INSERT OR UPDATE ON legacy.events FOR EACH ROW EXECUTE FUNCTION reconcile.keep_digest();

CREATE TRIGGER whole_diff BEFORE UPDATE OF state ON replay.replays FOR EACH ROW WHEN (((new.state = ANY (ARRAY['diffed'::replay.state, 'committing'::replay.state])) AND (old.state <> new.state))) EXECUTE FUNCTION replay.require_whole_diff();

CREATE TRIGGER keep_digest BEFORE UPDATE OF tenant_id, event_id, type, name, user_id, anonymous_id, properties, traits, context, digest ON shadow.events FOR EACH ROW EXECUTE FUNCTION reconcile.keep_digest();

ALTER TABLE ONLY control.alert_deliveries
    ADD CONSTRAINT alert_deliveries_channel_fkey FOREIGN KEY (channel) REFERENCES control.alert_channels(channel) ON DELETE CASCADE;

ALTER TABLE ONLY control.alert_deliveries
    ADD CONSTRAINT alert_deliveries_notification_id_fkey FOREIGN KEY (notification_id) REFERENCES control.alert_notifications(notification_id) ON DELETE CASCADE;

ALTER TABLE ONLY control.alert_notifications
    ADD CONSTRAINT alert_notifications_alert_id_fkey FOREIGN KEY (alert_id) REFERENCES control.alerts(alert_id) ON DELETE CASCADE;

ALTER TABLE ONLY control.alerts
    ADD CONSTRAINT alerts_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES control.tenants(tenant_id);

ALTER TABLE ONLY control.erased_events
    ADD CONSTRAINT erased_events_erasure_id_fkey FOREIGN KEY (erasure_id) REFERENCES control.erasures(erasure_id);

ALTER TABLE ONLY control.erasures
    ADD CONSTRAINT erasures_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES control.tenants(tenant_id);

ALTER TABLE ONLY control.import_chunks
    ADD CONSTRAINT import_chunks_import_id_fkey FOREIGN KEY (import_id) REFERENCES control.imports(import_id);

ALTER TABLE ONLY control.legacy_keys
    ADD CONSTRAINT legacy_keys_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES control.tenants(tenant_id);

ALTER TABLE ONLY control.tombstones
    ADD CONSTRAINT tombstones_erasure_id_fkey FOREIGN KEY (erasure_id) REFERENCES control.erasures(erasure_id);

ALTER TABLE ONLY control.tombstones
    ADD CONSTRAINT tombstones_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES control.tenants(tenant_id);

ALTER TABLE ONLY control.traits
    ADD CONSTRAINT traits_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES control.tenants(tenant_id);

ALTER TABLE ONLY control.write_keys
    ADD CONSTRAINT write_keys_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES control.tenants(tenant_id);

ALTER TABLE ONLY queue.dead_letters
    ADD CONSTRAINT dead_letters_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES control.tenants(tenant_id);

ALTER TABLE ONLY queue.pruned
    ADD CONSTRAINT pruned_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES control.tenants(tenant_id);

ALTER TABLE ONLY queue.quarantine
    ADD CONSTRAINT quarantine_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES control.tenants(tenant_id);

ALTER TABLE ONLY recovery.moves
    ADD CONSTRAINT moves_recovery_id_fkey FOREIGN KEY (recovery_id) REFERENCES recovery.runs(recovery_id);

ALTER TABLE ONLY replay.before_images
    ADD CONSTRAINT before_images_replay_id_fkey FOREIGN KEY (replay_id) REFERENCES replay.replays(replay_id);

ALTER TABLE ONLY replay.chunks
    ADD CONSTRAINT chunks_replay_id_fkey FOREIGN KEY (replay_id) REFERENCES replay.replays(replay_id);

ALTER TABLE ONLY replay.counts
    ADD CONSTRAINT counts_replay_id_fkey FOREIGN KEY (replay_id) REFERENCES replay.replays(replay_id);

ALTER TABLE ONLY replay.scratch
    ADD CONSTRAINT scratch_replay_id_fkey FOREIGN KEY (replay_id) REFERENCES replay.replays(replay_id);
