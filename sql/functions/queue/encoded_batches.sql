-- Batches as workers read them, with their arrays in binary form. Python decodes the columns in this order
-- (queue/batches.py).
CREATE OR REPLACE VIEW queue.encoded_batches AS
SELECT b.batch_id, b.received_at, b.lane::text AS lane, b.events, array_send(b.tenant_ids) AS tenant_ids,
       array_send(b.event_ids) AS event_ids, array_send(b.client_ats) AS client_ats, array_send(b.types) AS types,
       array_send(b.lengths) AS lengths, array_send(b.received_ats) AS received_ats, b.envelope_of, b.envelopes, b.codec,
       b.payload, b.epoch, (SELECT e.is_shadow FROM control.epochs AS e WHERE e.epoch = b.epoch) AS is_shadow
FROM queue.batches AS b;
