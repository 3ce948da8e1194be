-- name: is_open
SELECT EXISTS (SELECT FROM control.circuits WHERE closed_at IS NULL)

-- name: open
WITH opened AS (
    INSERT INTO control.circuits (message)
    SELECT %(message)s
    -- One tenant is no deploy, unless it is the only one: what it sends must not stop the others.
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
SELECT circuit_id, opened_at, message, closed_at, reason FROM control.circuits ORDER BY circuit_id DESC LIMIT 1

-- name: waiting
SELECT coalesce(sum(end_event - first_event), 0)::bigint FROM queue.work

-- name: close
WITH closed AS (
    UPDATE control.circuits SET closed_at = clock_timestamp(), reason = %(reason)s WHERE closed_at IS NULL
    RETURNING circuit_id
), resolved AS (
    UPDATE control.alerts SET resolved_at = clock_timestamp()
    WHERE kind = 'circuit_open' AND resolved_at IS NULL AND EXISTS (SELECT FROM closed)
)
SELECT circuit_id FROM closed
