-- name: list
SELECT q.quarantine_id, t.name AS tenant, q.received_at, q.lane::text, q.message_id, q.code, q.message,
       octet_length(q.payload) AS bytes, q.readmitted_at
FROM queue.quarantine AS q JOIN control.tenants AS t USING (tenant_id)
WHERE (%(tenant)s::text IS NULL OR t.name = %(tenant)s) AND (%(code)s::text IS NULL OR q.code = %(code)s)
  AND (%(since)s::timestamptz IS NULL OR q.received_at >= %(since)s)
ORDER BY q.quarantine_id
LIMIT %(limit)s

-- name: show
SELECT q.quarantine_id, t.name AS tenant, q.received_at, q.lane::text, q.message_id, q.code, q.message,
       octet_length(q.payload) AS bytes, q.readmitted_at, q.payload
FROM queue.quarantine AS q JOIN control.tenants AS t USING (tenant_id)
WHERE q.quarantine_id = %(quarantine_id)s

-- name: next
-- Locked until they are let in or left, so that two who readmit at once take different ones. Erased ones have no bytes.
SELECT q.quarantine_id, q.tenant_id, q.payload, q.received_at
FROM queue.quarantine AS q JOIN control.tenants AS t USING (tenant_id)
WHERE q.quarantine_id > %(after)s AND q.readmitted_at IS NULL AND q.payload <> ''
  AND (%(tenant)s::text IS NULL OR t.name = %(tenant)s) AND (%(code)s::text IS NULL OR q.code = %(code)s)
  AND (%(since)s::timestamptz IS NULL OR q.received_at >= %(since)s)
  AND (%(ids)s::bigint[] IS NULL OR q.quarantine_id = ANY(%(ids)s::bigint[]))
ORDER BY q.quarantine_id
LIMIT %(limit)s
FOR UPDATE OF q SKIP LOCKED

-- name: recall_keys
-- What was sent again and delivered since, or was delivered before, is in production though its key may be gone.
SELECT analytics.recall_keys(
    %(tenant_ids)s::integer[], %(event_ids)s::uuid[],
    (SELECT min(received_at) FROM queue.quarantine
     WHERE tenant_id = ANY(%(tenant_ids)s::integer[]) AND quarantine_id = ANY(%(ids)s::bigint[])) - %(retention)s::interval,
    clock_timestamp())

-- name: readmitted
UPDATE queue.quarantine SET readmitted_at = clock_timestamp() WHERE quarantine_id = ANY(%s::bigint[])
