-- The accepted events as rows, for people and for the audit.
CREATE OR REPLACE VIEW queue.events AS
SELECT b.batch_id, e.position::integer - 1 AS event_index, b.lane,
       e.tenant_id, e.event_id, e.type, e.client_at, coalesce(e.own_received_at, b.received_at) AS received_at,
       b.received_at AS batch_received_at, e.length AS bytes
FROM queue.batches AS b
CROSS JOIN LATERAL unnest(b.tenant_ids, b.event_ids, b.types, b.client_ats, b.lengths, b.received_ats)
    WITH ORDINALITY AS e(tenant_id, event_id, type, client_at, length, own_received_at, position);
