-- name: keys
-- The valid write keys among these hashes, each with its tenant and quota.
SELECT w.key_hash, w.tenant_id, t.events_per_s
FROM control.write_keys AS w JOIN control.tenants AS t USING (tenant_id)
WHERE w.key_hash = ANY(%s::bytea[]) AND (w.revoked_at IS NULL OR w.revoked_at > now())

-- name: open_hour
-- Opens the current hour.
SELECT queue.open_hour(date_trunc('hour', clock_timestamp(), 'UTC'))

-- name: waiting_events
-- The number of events that wait in the queue.
SELECT coalesce(sum(end_event - first_event), 0)::bigint FROM queue.work

-- name: wake_workers
-- Wakes the workers.
NOTIFY queue_work
