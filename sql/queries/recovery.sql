-- name: dropped
-- Events that the legacy pipeline dropped, by tenant and by the stage that reported the loss.
WITH dropped AS MATERIALIZED (
    SELECT s.tenant_id, s.event_id
    FROM shadow.events AS s
    WHERE s.received_at >= %(start)s AND s.received_at < %(end)s
      AND (%(tenant_ids)s::integer[] IS NULL OR s.tenant_id = ANY(%(tenant_ids)s))
      AND NOT EXISTS (SELECT FROM legacy.output AS o WHERE o.tenant_id = s.tenant_id AND o.event_id = s.event_id)
      -- Exclude events that were sent again after their identity key was gone, and delivered into production.
      AND NOT EXISTS (SELECT FROM analytics.events AS e
                      WHERE e.tenant_id = s.tenant_id AND e.event_id = s.event_id AND e.received_at >= %(start)s)
), reported AS (
    SELECT DISTINCT ON (l.tenant_id, l.event_id) l.tenant_id, l.event_id, l.stage
    FROM legacy.losses AS l JOIN dropped USING (tenant_id, event_id)
    ORDER BY l.tenant_id, l.event_id, l.lost_at DESC
)
SELECT coalesce(t.name, d.tenant_id::text) AS tenant, coalesce(r.stage, 'unreported') AS stage, count(*) AS events,
       (array_agg(d.event_id::text ORDER BY d.event_id))[1:3] AS samples
FROM dropped AS d
LEFT JOIN reported AS r USING (tenant_id, event_id)
LEFT JOIN control.tenants AS t ON t.tenant_id = d.tenant_id
GROUP BY 1, 2
ORDER BY events DESC, 1, 2

-- name: recovered_before
-- The number of events of the window that were recovered before.
SELECT count(*) FROM analytics.events
WHERE received_at >= %(start)s AND received_at < %(end)s AND recovery_id IS NOT NULL
  AND (%(tenant_ids)s::integer[] IS NULL OR tenant_id = ANY(%(tenant_ids)s))

-- name: begin
-- Begins a recovery.
INSERT INTO recovery.runs (window_start, window_end, actor, reason)
VALUES (%(start)s, %(end)s, %(actor)s, %(reason)s) RETURNING recovery_id

-- name: list_dropped
-- Lists the dropped events of the window in chunks.
CREATE TEMPORARY TABLE to_recover ON COMMIT PRESERVE ROWS AS
SELECT (row_number() OVER (ORDER BY s.received_at, s.tenant_id, s.event_id) - 1) / %(chunk)s AS chunk, s.tenant_id,
       s.received_at, s.event_id
FROM shadow.events AS s
WHERE s.received_at >= %(start)s AND s.received_at < %(end)s
  AND (%(tenant_ids)s::integer[] IS NULL OR s.tenant_id = ANY(%(tenant_ids)s))
  AND NOT EXISTS (SELECT FROM legacy.output AS o WHERE o.tenant_id = s.tenant_id AND o.event_id = s.event_id)
  AND NOT EXISTS (SELECT FROM analytics.events AS e
                  WHERE e.tenant_id = s.tenant_id AND e.event_id = s.event_id AND e.received_at >= %(start)s)

-- name: chunks
-- The chunks of the recovery and their sizes.
SELECT chunk, count(*) FROM to_recover GROUP BY chunk ORDER BY chunk

-- name: enter
-- Takes the shared locks of a move: no erasure searches rows while they are between two tables, and no generation of
-- identity keys is opened.
SELECT pg_advisory_xact_lock_shared(control.erasure_lock()), pg_advisory_xact_lock_shared(analytics.key_lock())

-- name: move
-- Moves one chunk from shadow.events into production in one transaction. A row can leave shadow.events only once: of
-- two recoveries of the same rows, the second waits at the DELETE and then finds them gone. A row moves only under its
-- own identity key. A missing identity key is created again, so that an event that is delivered meanwhile is delivered
-- once.
WITH wanted AS MATERIALIZED (
    SELECT t.tenant_id, t.received_at, t.event_id,
           (SELECT k.received_at FROM analytics.keys AS k
            WHERE k.tenant_id = t.tenant_id AND k.event_id = t.event_id LIMIT 1) AS known_at
    FROM to_recover AS t WHERE t.chunk = %(chunk)s
), keyed AS (
    INSERT INTO analytics.keys (generation, tenant_id, event_id, received_at)
    SELECT (SELECT max(generation) FROM analytics.key_generations), tenant_id, event_id, received_at
    FROM wanted WHERE known_at IS NULL
    ORDER BY tenant_id, event_id
    ON CONFLICT DO NOTHING
    RETURNING tenant_id, event_id
), own AS MATERIALIZED (
    SELECT tenant_id, event_id, received_at FROM wanted WHERE known_at = received_at
    UNION ALL
    SELECT w.tenant_id, w.event_id, w.received_at FROM wanted AS w JOIN keyed USING (tenant_id, event_id)
), taken AS (
    DELETE FROM shadow.events AS s USING own AS t
    WHERE s.tenant_id = t.tenant_id AND s.received_at = t.received_at AND s.event_id = t.event_id
      AND s.received_at >= %(start)s AND s.received_at < %(end)s
    RETURNING s.*
), put AS (
    INSERT INTO analytics.events
    SELECT r.* FROM taken AS t CROSS JOIN LATERAL jsonb_populate_record(
        NULL::analytics.events, to_jsonb(t) || jsonb_build_object('recovery_id', %(recovery_id)s::bigint)) AS r
    RETURNING tenant_id, received_at
), marked AS (
    INSERT INTO analytics.rollup_marks (tenant_id, received_hour)
    SELECT DISTINCT tenant_id, date_trunc('hour', received_at, 'UTC') FROM put
), noted AS (
    INSERT INTO recovery.moves (recovery_id, tenant_id, hour, events)
    SELECT %(recovery_id)s, tenant_id, date_trunc('hour', received_at, 'UTC'), count(*) FROM put GROUP BY 2, 3
)
SELECT count(*) FROM put

-- name: finish
-- Records that a recovery is finished.
UPDATE recovery.runs SET finished_at = clock_timestamp() WHERE recovery_id = %(recovery_id)s

-- name: moved
-- The events that a recovery moved, by tenant.
SELECT coalesce(t.name, m.tenant_id::text) AS tenant, sum(m.events)::bigint AS events
FROM recovery.moves AS m LEFT JOIN control.tenants AS t USING (tenant_id)
WHERE m.recovery_id = %(recovery_id)s GROUP BY 1 ORDER BY events DESC, 1
