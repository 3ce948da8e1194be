-- name: try_import_lock
SELECT pg_try_advisory_lock(hashtextextended(%s, 7))

-- name: start_import
INSERT INTO control.imports (import_id, source, shift, started_at) VALUES (%s, %s, %s, %s)
ON CONFLICT (import_id) DO NOTHING

-- name: find_import
SELECT shift, started_at, finished_at FROM control.imports WHERE import_id = %s

-- name: finish_import
UPDATE control.imports SET finished_at = now() WHERE import_id = %s AND finished_at IS NULL

-- name: chunks
SELECT hour, chunk, accepted, rejected FROM control.import_chunks WHERE import_id = %s

-- name: hold_hour
SELECT pg_advisory_lock_shared(queue.hour_lock(%s))

-- name: reopen_hour
SELECT queue.reopen_hour(%s)

-- name: dropped_hours
SELECT hour FROM queue.hours WHERE dropped_at IS NOT NULL

-- name: now
SELECT clock_timestamp()

-- name: import_batch
SELECT queue.import_batch(%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)

-- name: wake_workers
NOTIFY queue_work
