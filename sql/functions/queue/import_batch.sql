-- queue.accept for imports: the events bring their own received_at, all within an_hour. One call is one transaction.
-- Returns false if this chunk was imported before: then nothing is added.
CREATE OR REPLACE FUNCTION queue.import_batch(
    an_import text, an_hour timestamptz, a_chunk integer, p_received_ats timestamptz[],
    p_tenant_ids integer[], p_event_ids uuid[], p_client_ats timestamptz[], p_types "char"[], p_lengths integer[],
    p_envelope_of integer[], p_envelopes bytea[], p_codec text, p_payload bytea,
    r_received_ats timestamptz[], r_tenant_ids integer[], r_message_ids text[], r_codes text[], r_messages text[],
    r_payloads bytea[]
) RETURNS boolean LANGUAGE plpgsql AS $$
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
