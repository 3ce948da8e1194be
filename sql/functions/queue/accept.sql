-- Accepts a batch: stores its events, its work and the rejected events, and counts them in the account. The batch keeps
-- the XOR of the hashes of its identities.
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
