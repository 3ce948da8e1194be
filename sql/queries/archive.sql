-- name: try_hold
SELECT pg_try_advisory_lock(hashtext('control.erasure'))

-- name: release
SELECT pg_advisory_unlock(hashtext('control.erasure'))

