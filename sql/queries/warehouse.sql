-- name: due
-- Sealed hours whose rows may have changed since they were exported, and in which no event is in flight. Without `new`
-- only those that were exported before. Hours past the exports' retention are left out.
SELECT h.hour
FROM queue.hours AS h
LEFT JOIN analytics.rollup_hours AS r ON r.received_hour = h.hour
LEFT JOIN LATERAL (SELECT refreshes FROM control.exports AS own
                   WHERE own.hour = h.hour AND published_at IS NOT NULL
                   ORDER BY version DESC LIMIT 1) AS x ON true
WHERE h.sealed_at IS NOT NULL AND h.hour >= %(first)s::timestamptz AND h.hour + interval '1 hour' <= clock_timestamp()
  AND (%(days)s = 0 OR h.hour >= clock_timestamp() - make_interval(days => %(days)s))
  AND (%(new)s OR x.refreshes IS NOT NULL)
  AND (x.refreshes IS DISTINCT FROM coalesce(r.refreshes, 0)
       OR EXISTS (SELECT FROM analytics.unrolled AS u WHERE u.received_hour = h.hour))
  AND NOT EXISTS (SELECT FROM account.funnel AS f WHERE f.hour = h.hour GROUP BY f.hour HAVING sum(f.in_flight) <> 0)
ORDER BY h.hour

-- name: hour
-- The state of an hour in this snapshot. refreshes says what its rows are once nothing of it is unrolled.
SELECT h.sealed_at IS NOT NULL AS is_sealed,
       coalesce((SELECT sum(f.in_flight) FROM account.funnel AS f WHERE f.hour = h.hour), 0)::bigint AS in_flight,
       EXISTS (SELECT FROM analytics.unrolled AS u WHERE u.received_hour = h.hour) AS is_unrolled,
       coalesce((SELECT refreshes FROM analytics.rollup_hours AS r WHERE r.received_hour = h.hour), 0) AS refreshes
FROM queue.hours AS h WHERE h.hour = %(hour)s

-- name: current
-- The newest published version of an hour.
SELECT hour, version, address, file, events, bytes, sha256, refreshes, published_at
FROM control.exports WHERE hour = %(hour)s AND published_at IS NOT NULL AND removed_at IS NULL
ORDER BY version DESC LIMIT 1

-- name: begin
-- Takes the next version of an hour. A version that was not published is not used again.
INSERT INTO control.exports (hour, version, address)
SELECT %(hour)s, n, %(hour_address)s || '/v' || n
FROM (SELECT coalesce(max(version), 0) + 1 AS n FROM control.exports WHERE hour = %(hour)s) AS next
RETURNING version, address, begun_at

-- name: publish
-- Records what a version holds.
UPDATE control.exports SET published_at = clock_timestamp(), file = %(file)s, events = %(events)s, bytes = %(bytes)s,
                           sha256 = %(sha256)s, refreshes = %(refreshes)s
WHERE hour = %(hour)s AND version = %(version)s

-- name: unchanged
-- Records that a version still is what production holds.
UPDATE control.exports SET refreshes = %(refreshes)s WHERE hour = %(hour)s AND version = %(version)s

-- name: tally
-- The number of a tenant's rows of an hour, and the SHA-256 of their ids in ascending order.
SELECT count(*), encode(sha256(coalesce(string_agg(uuid_send(event_id), ''::bytea ORDER BY event_id), '')), 'hex')
FROM analytics.events
WHERE tenant_id = %(tenant_id)s AND received_at >= %(hour)s AND received_at < %(hour)s + interval '1 hour'

-- name: transforms
-- The versions of the transforms that were in use since the hour began.
SELECT DISTINCT version FROM control.transforms
WHERE since >= coalesce((SELECT max(since) FROM control.transforms WHERE since <= %(hour)s), %(hour)s)
ORDER BY version

-- name: superseded
-- Versions that are not the current one of their hour and whose files are still there: readers may use them for a while.
-- After an erasure nobody may, and a version that was never published nobody does.
SELECT e.hour, e.version, e.address
FROM control.exports AS e
CROSS JOIN LATERAL (SELECT version, published_at FROM control.exports AS own
                    WHERE own.hour = e.hour AND published_at IS NOT NULL ORDER BY version DESC LIMIT 1) AS c
WHERE e.removed_at IS NULL AND e.version < c.version
  AND (c.published_at + %(grace)s < clock_timestamp()
       OR EXISTS (SELECT FROM control.erasures AS x WHERE x.erased_at >= e.begun_at))
ORDER BY e.hour, e.version

-- name: expired
-- Versions whose files are still there, of hours past the exports' retention, and of hours of which no version was ever
-- published: their export was killed.
SELECT hour, version, address FROM control.exports AS e
WHERE removed_at IS NULL
  AND ((%(days)s > 0 AND hour < clock_timestamp() - make_interval(days => %(days)s))
       OR (NOT EXISTS (SELECT FROM control.exports AS own WHERE own.hour = e.hour AND published_at IS NOT NULL)
           AND (begun_at + %(grace)s < clock_timestamp()
                OR EXISTS (SELECT FROM control.erasures AS x WHERE x.erased_at >= e.begun_at))))
ORDER BY hour, version

-- name: removed
-- Records that the files of a version were removed.
UPDATE control.exports SET removed_at = clock_timestamp() WHERE hour = %(hour)s AND version = %(version)s

-- name: list
-- The versions of all hours, or of one hour, whose files are there.
SELECT hour, version, events, bytes, sha256, address, file, published_at,
       version = max(version) FILTER (WHERE published_at IS NOT NULL) OVER (PARTITION BY hour) AS is_current
FROM control.exports
WHERE removed_at IS NULL AND (%(hour)s::timestamptz IS NULL OR hour = %(hour)s)
ORDER BY hour, version
