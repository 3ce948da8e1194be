-- name: list
-- Quarantined events that match a filter.
SELECT q.quarantine_id, t.name AS tenant, q.received_at, q.lane::text, q.message_id, q.code, q.message,
       octet_length(q.payload) AS bytes, q.readmitted_at
FROM queue.quarantine AS q JOIN control.tenants AS t USING (tenant_id)
WHERE (%(tenant)s::text IS NULL OR t.name = %(tenant)s) AND (%(code)s::text IS NULL OR q.code = %(code)s)
  AND (%(since)s::timestamptz IS NULL OR q.received_at >= %(since)s)
ORDER BY q.quarantine_id
LIMIT %(limit)s

-- name: show
-- One quarantined event with its payload.
SELECT q.quarantine_id, t.name AS tenant, q.received_at, q.lane::text, q.message_id, q.code, q.message,
       octet_length(q.payload) AS bytes, q.readmitted_at, q.payload
FROM queue.quarantine AS q JOIN control.tenants AS t USING (tenant_id)
WHERE q.quarantine_id = %(quarantine_id)s

-- name: next
-- The next events to readmit. They stay locked until they are readmitted or left, so that two concurrent runs take
-- different ones. Erased events have no bytes and are left out.
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
-- Creates missing identity keys of events that are in production: delivered before, or sent again and delivered since.
SELECT analytics.recall_keys(
    %(tenant_ids)s::integer[], %(event_ids)s::uuid[],
    (SELECT min(received_at) FROM queue.quarantine
     WHERE tenant_id = ANY(%(tenant_ids)s::integer[]) AND quarantine_id = ANY(%(ids)s::bigint[])) - %(retention)s::interval,
    clock_timestamp())

-- name: readmitted
-- Records that quarantined events were readmitted.
UPDATE queue.quarantine SET readmitted_at = clock_timestamp() WHERE quarantine_id = ANY(%s::bigint[])
