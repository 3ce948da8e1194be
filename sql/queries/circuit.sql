-- name: is_open
-- Whether the circuit is open.
SELECT EXISTS (SELECT FROM control.circuits WHERE closed_at IS NULL)

-- name: open
-- Opens the circuit and its alert.
WITH opened AS (
    INSERT INTO control.circuits (message)
    SELECT %(message)s
    -- Events of one tenant alone do not open the circuit, unless it is the only tenant: they must not stop the others.
    WHERE %(bad_tenants)s >= least(%(tenants_min)s, greatest(
        (SELECT count(DISTINCT tenant_id) FROM account.funnel
         WHERE hour >= date_trunc('hour', now(), 'UTC') - interval '1 day' AND accepted > 0),
        (SELECT least(count(*), 2) FROM control.tenants)))
    ON CONFLICT DO NOTHING
    RETURNING circuit_id
)
INSERT INTO control.alerts AS a (kind, fingerprint, message)
SELECT 'circuit_open', 'circuit', %(message)s FROM opened
ON CONFLICT (kind, fingerprint, tenant_id) WHERE resolved_at IS NULL
DO UPDATE SET occurrences = a.occurrences + 1, last_seen_at = now(), message = excluded.message

-- name: newest
-- The latest opening of the circuit.
SELECT circuit_id, opened_at, message, closed_at, reason FROM control.circuits ORDER BY circuit_id DESC LIMIT 1

-- name: waiting
-- The number of events that wait in the queue.
SELECT coalesce(sum(end_event - first_event), 0)::bigint FROM queue.work

-- name: close
-- Closes the circuit and resolves its alert.
WITH closed AS (
    UPDATE control.circuits SET closed_at = clock_timestamp(), reason = %(reason)s WHERE closed_at IS NULL
    RETURNING circuit_id
), resolved AS (
    UPDATE control.alerts SET resolved_at = clock_timestamp()
    WHERE kind = 'circuit_open' AND resolved_at IS NULL AND EXISTS (SELECT FROM closed)
)
SELECT circuit_id FROM closed
