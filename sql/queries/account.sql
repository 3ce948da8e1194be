-- name: tenant_names
-- The names of all tenants.
SELECT tenant_id, name FROM control.tenants

-- name: funnel
-- The funnel: one row over everything (level 7), one per tenant (3), one per hour (5) and one per lane (6).
WITH chosen AS (
    SELECT f.*, coalesce(t.name, f.tenant_id::text) AS tenant,
           received = accepted + rejected
           AND accepted = delivered + duplicate + dead_lettered + discarded + in_flight
           AND least(received, accepted, rejected, claimed, enriched, delivered, duplicate, dead_lettered, discarded,
                     in_flight) >= 0 AS balanced
    FROM account.funnel AS f
    LEFT JOIN control.tenants AS t USING (tenant_id)
    WHERE (%(tenant_id)s::integer IS NULL OR tenant_id = %(tenant_id)s)
      AND (%(since)s::timestamptz IS NULL OR hour >= %(since)s)
)
SELECT grouping(tenant, hour, lane) AS level, tenant, hour, lane::text,
       coalesce(sum(received), 0)::bigint AS received, coalesce(sum(accepted), 0)::bigint AS accepted,
       coalesce(sum(rejected), 0)::bigint AS rejected, coalesce(sum(claimed), 0)::bigint AS claimed,
       coalesce(sum(enriched), 0)::bigint AS enriched, coalesce(sum(delivered), 0)::bigint AS delivered,
       coalesce(sum(duplicate), 0)::bigint AS duplicate, coalesce(sum(dead_lettered), 0)::bigint AS dead_lettered,
       coalesce(sum(discarded), 0)::bigint AS discarded, coalesce(sum(in_flight), 0)::bigint AS in_flight,
       coalesce(bool_and(balanced), true) AS balanced
FROM chosen
GROUP BY GROUPING SETS ((), (tenant), (hour), (lane))
ORDER BY level, hour, received DESC, tenant, lane

-- name: causes
-- Why events were not delivered: rejections at the gateway and dead letters, by cause. Pruned rows count by their kept
-- numbers.
SELECT failed_in, cause, fingerprint, outcome, sum(events)::bigint AS events, min(example) AS example
FROM (
    SELECT 'validate' AS failed_in, code AS cause, '' AS fingerprint, 'rejected' AS outcome, count(*) AS events,
           min(message) AS example
    FROM queue.quarantine
    WHERE (%(tenant_id)s::integer IS NULL OR tenant_id = %(tenant_id)s)
      AND (%(since)s::timestamptz IS NULL OR received_at >= %(since)s)
    GROUP BY code
    UNION ALL
    SELECT failed_in, error_class, fingerprint, CASE state WHEN 'discarded' THEN 'discarded' ELSE 'dead_lettered' END,
           count(*), min(error)
    FROM queue.dead_letters
    WHERE state IN ('waiting', 'exhausted', 'discarded')
      AND (%(tenant_id)s::integer IS NULL OR tenant_id = %(tenant_id)s)
      AND (%(since)s::timestamptz IS NULL OR batch_received_at >= %(since)s)
    GROUP BY 1, 2, 3, 4
    UNION ALL
    SELECT failed_in, cause, fingerprint, outcome, events, NULL
    FROM queue.pruned
    WHERE (%(tenant_id)s::integer IS NULL OR tenant_id = %(tenant_id)s)
      AND (%(since)s::timestamptz IS NULL OR hour >= date_trunc('hour', %(since)s, 'UTC'))
) AS part
GROUP BY 1, 2, 3, 4
ORDER BY events DESC, cause
LIMIT 50

-- name: hours
-- The hours to recount: all whose batches are kept, and hours that are in the account and not in the queue.
SELECT hour FROM queue.hours WHERE dropped_at IS NULL
UNION
SELECT hour FROM account.funnel WHERE hour NOT IN (SELECT hour FROM queue.hours)
ORDER BY hour

-- name: excluded
-- The number of dropped hours, and how many events were received in them.
SELECT count(DISTINCT h.hour) AS hours, coalesce(sum(f.received), 0)::bigint AS received
FROM queue.hours AS h LEFT JOIN account.funnel AS f USING (hour)
WHERE h.dropped_at IS NOT NULL

-- name: hold_hour
-- Prevents a drop of the hour's batches during the recount.
SELECT pg_advisory_xact_lock_shared(queue.hour_lock(%(hour)s))

-- name: counted
-- The account of one hour, by tenant and lane.
SELECT tenant_id, lane::text, received, accepted, rejected, claimed, enriched, delivered, duplicate, dead_lettered,
       discarded, in_flight
FROM account.funnel WHERE hour = %(hour)s

-- name: replayed
-- Replayed events of the hour in committed chunks, by tenant, for the audit.
SELECT n.tenant_id, sum(n.events - n.failed - n.discarded)::bigint
FROM replay.counts AS n JOIN replay.chunks AS c USING (replay_id, chunk)
WHERE n.hour = %(hour)s AND c.committed_at IS NOT NULL
GROUP BY n.tenant_id HAVING sum(n.events - n.failed - n.discarded) > 0

-- name: recount
-- Recounts one hour: every accepted occurrence of an event with its outcome, then all differences. An identity that
-- occurs several times in one batch has at most one row. The row does not tell which occurrence it is, so these
-- occurrences are judged together. Rows of kind 'count' are the recounted numbers of a tenant and lane. In them, lost
-- events are still counted as duplicates. The other rows are differences:
--   lost             accepted, and neither in flight, delivered, a dead letter nor a duplicate of a row that exists
--   doubled          more outcomes than occurrences, or a row whose identity has another row as well
--   extra            a row, dead letter or work that belongs to no accepted event
--   row_without_key  a delivered row whose identity key is gone: a resend would be delivered again
--   altered          a row of another type than was accepted, or whose message id is not its identity
WITH occurrence AS MATERIALIZED (
    SELECT batch_id, event_index, tenant_id, event_id, lane, ascii(type::text) AS type
    FROM queue.events
    WHERE batch_received_at >= %(hour)s AND batch_received_at < %(hour)s + interval '1 hour'
), waiting AS MATERIALIZED (
    SELECT w.batch_id, event_index, count(*) AS times
    FROM queue.work AS w CROSS JOIN LATERAL generate_series(w.first_event, w.end_event - 1) AS event_index
    WHERE w.received_at >= %(hour)s AND w.received_at < %(hour)s + interval '1 hour'
    GROUP BY w.batch_id, event_index
), letter AS MATERIALIZED (
    SELECT batch_id, event_index, tenant_id, event_id, failed_in, state
    FROM queue.dead_letters
    WHERE batch_received_at >= %(hour)s AND batch_received_at < %(hour)s + interval '1 hour'
), erased AS MATERIALIZED (
    SELECT batch_id, event_index, tenant_id, event_id, was
    FROM control.erased_events
    WHERE batch_received_at >= %(hour)s AND batch_received_at < %(hour)s + interval '1 hour'
), evidence AS (
    SELECT o.batch_id, o.tenant_id, o.event_id, o.lane, o.event_index, w.times AS waiting, l.state, l.failed_in, x.was,
           w.times > 1 OR (w.times > 0 AND l.state IS NOT NULL) AS is_twice,
           NULL::timestamptz AS row_at, NULL::timestamptz AS delivered_at, NULL::timestamptz AS key_at,
           o.type, NULL::integer AS row_type, NULL::boolean AS is_other
    FROM occurrence AS o
    LEFT JOIN waiting AS w USING (batch_id, event_index)
    LEFT JOIN letter AS l USING (batch_id, event_index, tenant_id, event_id)
    LEFT JOIN erased AS x USING (batch_id, event_index, tenant_id, event_id)
    UNION ALL
    SELECT e.batch_id, e.tenant_id, e.event_id, NULL, NULL, NULL, NULL, NULL, NULL, NULL, e.received_at, e.delivered_at,
           k.received_at, NULL, ascii(e.type),
           length(e.message_id) = 36 AND lower(e.message_id) <> e.event_id::text
           AND e.message_id ~* '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'
    FROM account.delivered AS e
    -- OFFSET 0 keeps this one index probe per row. A join could be planned as a scan of all identity keys.
    LEFT JOIN LATERAL (SELECT DISTINCT received_at FROM analytics.keys AS k
                       WHERE k.tenant_id = e.tenant_id AND k.event_id = e.event_id OFFSET 0) AS k ON true
    WHERE e.received_at >= %(hour)s AND e.received_at < %(hour)s + interval '1 hour'
), event AS (
    SELECT batch_id, tenant_id, event_id, max(lane) AS lane, min(event_index) AS event_index,
           count(lane) AS occurrences, count(waiting) AS waiting,
           count(*) FILTER (WHERE state IN ('waiting', 'exhausted')) AS dead,
           count(*) FILTER (WHERE state = 'discarded' OR was = 'delivered' OR (was = 'in_flight' AND waiting IS NULL))
               AS discarded,
           count(*) FILTER (WHERE was = 'delivered') AS erased,
           count(*) FILTER (WHERE failed_in = 'load' AND state IN ('waiting', 'exhausted', 'discarded')) AS dead_at_load,
           bool_or(is_twice) AS is_twice,
           -- A row with two identity keys appears twice, but only once with its own key.
           greatest(count(*) FILTER (WHERE row_at = coalesce(key_at, row_at)), least(count(row_at), 1)) AS rows,
           bool_or(key_at <> row_at) AS is_anothers, count(row_at) - count(key_at) AS keyless,
           max(delivered_at) AS delivered_at,
           -- Two occurrences in one batch may have different types. The row does not tell which occurrence it is.
           bool_or(is_other) OR (min(type) = max(type) AND min(row_type) <> min(type)) AS is_altered
    FROM evidence
    GROUP BY batch_id, tenant_id, event_id
), outcome AS MATERIALIZED (
    SELECT batch_id, tenant_id, event_id, lane, event_index, occurrences, waiting, dead, discarded, dead_at_load, erased,
           rows, occurrences - waiting - dead - discarded - rows AS others,
           is_twice IS TRUE OR rows > 1 OR (is_anothers IS TRUE AND is_keyed) AS is_doubled,
           keyless > 0 AND is_keyed AS is_keyless, is_altered IS TRUE AS is_altered
    FROM event
    -- Identity keys of rows delivered before the oldest generation are gone. This is expected.
    CROSS JOIN LATERAL (
        SELECT delivered_at >= (SELECT min(opened_at) FROM analytics.key_generations) AS is_keyed) AS known
), rowless AS MATERIALIZED (
    SELECT o.batch_id, o.tenant_id, o.event_id, count(k.event_id) AS keys, count(e.event_id) AS homes
    FROM outcome AS o
    LEFT JOIN analytics.keys AS k USING (tenant_id, event_id)
    LEFT JOIN account.delivered AS e
           ON e.tenant_id = k.tenant_id AND e.received_at = k.received_at AND e.event_id = k.event_id
    WHERE o.others > 0 AND o.rows = 0
    GROUP BY o.batch_id, o.tenant_id, o.event_id
), older AS (
    -- A duplicate may outlive the identity key that it met, but not the row. The search runs only if there are such
    -- duplicates.
    SELECT DISTINCT tenant_id, event_id
    FROM account.delivered
    WHERE EXISTS (SELECT FROM rowless WHERE keys = 0)
      AND (tenant_id, event_id) IN (SELECT tenant_id, event_id FROM rowless WHERE keys = 0)
      AND received_at >= %(hour)s - interval '2 days'
                         - 2 * (now() - (SELECT min(hour) FROM queue.hours WHERE dropped_at IS NULL))
), problem AS (
    SELECT 'lost' AS kind, tenant_id, o.lane, o.others AS n, event_id, batch_id, o.event_index
    FROM rowless AS r JOIN outcome AS o USING (batch_id, tenant_id, event_id)
    LEFT JOIN older USING (tenant_id, event_id)
    WHERE r.homes = 0 AND (r.keys > 0 OR older.event_id IS NULL)
      -- Duplicates of an erased event are not lost.
      AND NOT EXISTS (SELECT FROM control.erased_events AS x
                      WHERE x.tenant_id = o.tenant_id AND x.event_id = o.event_id)
    UNION ALL
    SELECT CASE WHEN occurrences = 0 THEN 'extra' WHEN is_doubled OR others < 0 THEN 'doubled'
                ELSE 'row_without_key' END,
           tenant_id, lane, 1, event_id, batch_id, event_index
    FROM outcome WHERE occurrences = 0 OR is_doubled OR others < 0 OR is_keyless
    UNION ALL
    SELECT 'altered', tenant_id, lane, 1, event_id, batch_id, event_index
    FROM outcome WHERE occurrences > 0 AND is_altered
    UNION ALL
    SELECT 'extra', l.tenant_id, NULL, 1, l.event_id, l.batch_id, l.event_index
    FROM letter AS l LEFT JOIN occurrence AS o USING (batch_id, event_index, tenant_id, event_id)
    WHERE o.batch_id IS NULL
    UNION ALL
    SELECT 'extra', NULL, NULL, 1, NULL, w.batch_id, w.event_index
    FROM waiting AS w LEFT JOIN occurrence AS o USING (batch_id, event_index)
    WHERE o.batch_id IS NULL
), rejected AS (
    SELECT tenant_id, lane, sum(events)::bigint AS rejected
    FROM (SELECT tenant_id, lane, 1 AS events FROM queue.quarantine
          WHERE received_at >= %(hour)s AND received_at < %(hour)s + interval '1 hour'
          UNION ALL
          SELECT tenant_id, lane, events FROM queue.pruned WHERE hour = %(hour)s AND outcome = 'rejected') AS known
    GROUP BY tenant_id, lane
), accepted AS (
    SELECT tenant_id, lane, sum(occurrences)::bigint AS accepted, sum(waiting)::bigint AS in_flight,
           sum(rows)::bigint AS delivered, sum(dead)::bigint AS dead_lettered, sum(discarded)::bigint AS discarded,
           sum(dead_at_load + erased)::bigint AS loaded_once,
           coalesce(sum(others) FILTER (WHERE others > 0), 0)::bigint AS duplicate
    FROM outcome WHERE occurrences > 0
    GROUP BY tenant_id, lane
)
SELECT 'count' AS kind, tenant_id, lane::text, NULL::bigint AS events, NULL::json AS samples,
       coalesce(accepted, 0) + coalesce(rejected, 0), coalesce(accepted, 0), coalesce(rejected, 0),
       coalesce(accepted - in_flight, 0), coalesce(delivered + duplicate + loaded_once, 0), coalesce(delivered, 0),
       coalesce(duplicate, 0), coalesce(dead_lettered, 0), coalesce(discarded, 0), coalesce(in_flight, 0)
FROM accepted FULL JOIN rejected USING (tenant_id, lane)
UNION ALL
SELECT kind, tenant_id, lane::text, sum(n)::bigint,
       to_json((array_agg(json_build_object('event_id', event_id, 'batch_id', batch_id, 'event_index', event_index)
                          ORDER BY batch_id, event_index, event_id))[1:%(samples)s]),
       NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL
FROM problem GROUP BY kind, tenant_id, lane

-- name: strays
-- What no recount of an hour can find: rows in hours that the queue never had, and identity keys without a row.
WITH kept AS MATERIALIZED (SELECT min(hour) AS since FROM queue.hours WHERE dropped_at IS NULL),
problem AS (
    SELECT 'extra' AS kind, e.tenant_id, e.received_at, e.event_id, e.batch_id
    FROM kept JOIN account.delivered AS e ON e.received_at >= kept.since
    LEFT JOIN queue.hours AS h ON h.hour = date_trunc('hour', e.received_at, 'UTC')
    WHERE h.hour IS NULL
    UNION ALL
    SELECT DISTINCT 'key_without_row', k.tenant_id, k.received_at, k.event_id, NULL::bigint
    FROM kept JOIN analytics.keys AS k ON k.received_at >= kept.since
    LEFT JOIN account.delivered AS e
           ON e.tenant_id = k.tenant_id AND e.received_at = k.received_at AND e.event_id = k.event_id
          AND e.received_at >= kept.since
    WHERE e.event_id IS NULL
      AND NOT EXISTS (SELECT FROM control.erased_events AS x
                      WHERE x.tenant_id = k.tenant_id AND x.event_id = k.event_id)
)
SELECT kind, tenant_id, date_trunc('hour', received_at, 'UTC') AS hour, count(*)::bigint,
       to_json((array_agg(json_build_object('event_id', event_id, 'batch_id', batch_id)
                          ORDER BY event_id))[1:%(samples)s])
FROM problem GROUP BY 1, 2, 3

-- name: trace_delivered
-- The delivered rows of one event, found by identity key. The key may be in several generations. It is kept for as long
-- as the queue's batches.
SELECT DISTINCT t.name AS tenant, e.received_at, e.occurred_at, e.delivered_at, e.type, e.name, e.user_id, e.anonymous_id,
       e.batch_id
FROM control.tenants AS t
JOIN analytics.keys AS k ON k.tenant_id = t.tenant_id AND k.event_id = %(event_id)s
JOIN account.delivered AS e
  ON e.tenant_id = k.tenant_id AND e.received_at = k.received_at AND e.event_id = k.event_id
WHERE %(tenant_id)s::integer IS NULL OR t.tenant_id = %(tenant_id)s
ORDER BY tenant, e.received_at

-- name: trace_delivered_before
-- The delivered rows of one event whose identity key is gone. This reads every row.
SELECT t.name AS tenant, e.received_at, e.occurred_at, e.delivered_at, e.type, e.name, e.user_id, e.anonymous_id,
       e.batch_id
FROM account.delivered AS e JOIN control.tenants AS t USING (tenant_id)
WHERE e.event_id = %(event_id)s AND (%(tenant_id)s::integer IS NULL OR e.tenant_id = %(tenant_id)s)
ORDER BY tenant, e.received_at

-- name: trace_occurrences
-- All occurrences of one event in the batches of the queue, with the work that waits.
SELECT t.name AS tenant, b.batch_id, o.place::integer - 1 AS event_index, b.lane::text,
       coalesce(o.own_received_at, b.received_at) AS received_at, o.length AS bytes, w.work_id, w.deaths,
       b.received_at AS batch_received_at
FROM queue.batches AS b
CROSS JOIN LATERAL unnest(b.tenant_ids, b.event_ids, b.lengths, b.received_ats)
    WITH ORDINALITY AS o(tenant_id, event_id, length, own_received_at, place)
JOIN control.tenants AS t USING (tenant_id)
LEFT JOIN queue.work AS w ON w.batch_id = b.batch_id AND o.place - 1 >= w.first_event AND o.place - 1 < w.end_event
WHERE %(event_id)s = ANY(b.event_ids) AND o.event_id = %(event_id)s
  AND (%(tenant_id)s::integer IS NULL OR o.tenant_id = %(tenant_id)s)
ORDER BY received_at, b.batch_id, event_index

-- name: trace_dead_letters
-- The dead letters of one event.
SELECT t.name AS tenant, d.dead_letter_id, d.batch_id, d.event_index, d.lane::text, d.received_at, d.failed_in, d.state,
       d.attempts, d.next_attempt_at, d.created_at, d.resolved_at, d.error_class, d.error, d.reason
FROM queue.dead_letters AS d JOIN control.tenants AS t USING (tenant_id)
WHERE d.event_id = %(event_id)s AND (%(tenant_id)s::integer IS NULL OR d.tenant_id = %(tenant_id)s)
ORDER BY d.received_at, d.dead_letter_id

-- name: trace_quarantined
-- The quarantined events with one message id.
SELECT t.name AS tenant, q.quarantine_id, q.received_at, q.lane::text, q.code, q.message
FROM queue.quarantine AS q JOIN control.tenants AS t USING (tenant_id)
WHERE q.message_id = %(message_id)s AND (%(tenant_id)s::integer IS NULL OR q.tenant_id = %(tenant_id)s)
ORDER BY q.received_at, q.quarantine_id
