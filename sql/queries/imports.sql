-- name: try_import_lock
-- Tries to take the lock under which only one process runs an import.
SELECT pg_try_advisory_lock(hashtextextended(%s, 7))

-- name: start_import
-- Records a new import, if it is not known.
INSERT INTO control.imports (import_id, source, shift, started_at) VALUES (%s, %s, %s, %s)
ON CONFLICT (import_id) DO NOTHING

-- name: find_import
-- The state of an import.
SELECT shift, started_at, finished_at FROM control.imports WHERE import_id = %s

-- name: finish_import
-- Records that an import is finished.
UPDATE control.imports SET finished_at = now() WHERE import_id = %s AND finished_at IS NULL

-- name: chunks
-- The chunks that were imported.
SELECT hour, chunk, accepted, rejected FROM control.import_chunks WHERE import_id = %s

-- name: hold_hour
-- Prevents a seal of the hour for as long as the session lasts.
SELECT pg_advisory_lock_shared(queue.hour_lock(%s))

-- name: reopen_hour
-- Opens an hour for the import.
SELECT queue.reopen_hour(%s)

-- name: dropped_hours
-- The hours that were dropped.
SELECT hour FROM queue.hours WHERE dropped_at IS NOT NULL

-- name: now
-- The database's clock.
SELECT clock_timestamp()

-- name: import_batch
-- Imports one chunk.
SELECT queue.import_batch(%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)

-- name: wake_workers
-- Wakes the workers.
NOTIFY queue_work
