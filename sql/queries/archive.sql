-- name: try_hold
-- Tries to take the session lock that excludes erasures.
SELECT pg_try_advisory_lock(hashtext('control.erasure'))

-- name: release
-- Releases the session lock that excludes erasures.
SELECT pg_advisory_unlock(hashtext('control.erasure'))

-- name: due
-- Hours past their retention that are not archived in their current state.
SELECT hour FROM queue.hours
WHERE dropped_at IS NULL AND sealed_at + %(retention)s::interval < clock_timestamp() AND NOT queue.is_archived(hour)
ORDER BY hour

-- name: hold_hour
-- Prevents a drop or a seal of the hour while it is read. It is a session lock: a transaction would see the hour as it
-- was before the wait.
SELECT pg_advisory_lock_shared(queue.hour_lock(%(hour)s))

-- name: release_hour
-- Releases the hour's session lock.
SELECT pg_advisory_unlock_shared(queue.hour_lock(%(hour)s))

-- name: hour
-- The state of one hour.
SELECT sealed_at, seals, dropped_at FROM queue.hours WHERE hour = %(hour)s

-- name: batches
-- All batches of one hour.
SELECT b.*
FROM queue.encoded_batches AS b
WHERE b.received_at >= %(hour)s AND b.received_at < %(hour)s + interval '1 hour'
ORDER BY b.batch_id

-- name: tenant_names
-- The names of all tenants.
SELECT tenant_id, name FROM control.tenants

-- name: note
-- Records the archive of an hour.
INSERT INTO control.archives (hour, address, events, bytes, sha256, seals, verified_at)
VALUES (%(hour)s, %(address)s, %(events)s, %(bytes)s, %(sha256)s, %(seals)s, clock_timestamp())
ON CONFLICT (hour) DO UPDATE SET address = excluded.address, events = excluded.events, bytes = excluded.bytes,
    sha256 = excluded.sha256, seals = excluded.seals, archived_at = clock_timestamp(), verified_at = excluded.verified_at

-- name: rewritten
-- Records a new file for an archived hour.
UPDATE control.archives SET address = %(address)s, bytes = %(bytes)s, sha256 = %(sha256)s,
                            verified_at = clock_timestamp()
WHERE hour = %(hour)s

-- name: verified
-- Records that an archive was read back and verified.
UPDATE control.archives SET verified_at = clock_timestamp() WHERE hour = %(hour)s

-- name: list
-- Archived hours, all or one.
SELECT a.hour, a.address, a.events, a.bytes, a.sha256, a.seals, a.archived_at, a.verified_at, a.restored_at,
       h.dropped_at IS NULL AS is_kept
FROM control.archives AS a LEFT JOIN queue.hours AS h USING (hour)
WHERE %(hour)s::timestamptz IS NULL OR hour = %(hour)s
ORDER BY hour

-- name: alert
-- Opens the alert of a failed archive, or counts the failure in the open one.
INSERT INTO control.alerts AS a (kind, fingerprint, message)
VALUES ('archive_failed', %(hour)s, %(message)s)
ON CONFLICT (kind, fingerprint, tenant_id) WHERE resolved_at IS NULL
DO UPDATE SET occurrences = a.occurrences + 1, last_seen_at = now(), message = excluded.message

-- name: resolve_alert
-- Resolves the alert of an hour's failed archive.
UPDATE control.alerts SET resolved_at = now()
WHERE kind = 'archive_failed' AND fingerprint = %(hour)s AND resolved_at IS NULL

-- name: restore_hour
-- Opens the partition of an archived hour again.
SELECT queue.restore_hour(%(hour)s)

-- name: recall_hour
-- Creates the identity keys of a restored hour.
SELECT queue.recall_hour(%(hour)s)

-- name: restore_batch
-- Inserts one batch of a restored hour.
INSERT INTO queue.batches (batch_id, received_at, lane, events, received_ats, epoch, tenant_ids, event_ids, client_ats, types,
                           lengths, envelope_of, envelopes, codec, payload)
VALUES (%s, %s, %s::queue.lane, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
