-- name: target
-- The compared columns and the time for which the legacy pipeline may still deliver, the epochs that were mirrored,
-- whether digests of the compared columns are kept with the rows, and the number of tenants.
SELECT t.compared, t.settle_s, ARRAY(SELECT epoch FROM control.epochs WHERE is_mirrored ORDER BY epoch),
       t.compared @> reconcile.kept_columns() AND t.compared <@ reconcile.kept_columns(),
       (SELECT count(*) FROM control.tenants)
FROM control.legacy_target AS t

-- name: default_window
-- The default window: from the first mirrored batch that is still kept to the present.
SELECT (SELECT min(b.received_at) FROM queue.batches AS b JOIN control.epochs USING (epoch) WHERE is_mirrored),
       clock_timestamp()

-- name: waiting
-- What the platform and the mirror still have to process in a window, and how many transactions can still accept into
-- it.
SELECT (SELECT coalesce(sum(w.end_event - w.first_event), 0)::bigint FROM queue.work AS w
        WHERE w.received_at >= %(start)s AND w.received_at < %(end)s) AS in_flight,
       (SELECT coalesce(sum(m.events), 0)::bigint FROM queue.mirror AS m
        WHERE m.received_at >= %(start)s AND m.received_at < %(end)s) AS in_mirror,
       (SELECT count(DISTINCT l.pid) FROM pg_locks AS l JOIN pg_stat_activity AS a USING (pid)
        WHERE l.locktype = 'advisory' AND l.objsubid = 1 AND a.xact_start < %(end)s
          AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
          AND (l.classid::bigint << 32 | l.objid::bigint)
              IN (SELECT queue.hour_lock(hour) FROM queue.hours WHERE hour < %(end)s AND sealed_at IS NULL))::bigint
       AS accepting,
       greatest(0, extract(epoch FROM %(end)s - clock_timestamp()))::float8 AS ends_in_s,
       greatest(0, extract(epoch FROM %(end)s - clock_timestamp()) + %(settle_s)s)::float8 AS settles_in_s

-- name: still_delivers
-- Whether the legacy pipeline delivered events of the window within the last settle_s seconds.
SELECT EXISTS (
    SELECT FROM legacy.output AS o
    -- Evaluated once, so that an index can be used.
    WHERE o.received_at > (SELECT clock_timestamp() - make_interval(secs => %(settle_s)s))
      AND EXISTS (SELECT FROM analytics.keys AS k
                  WHERE k.tenant_id = o.tenant_id AND k.event_id = o.event_id
                    AND k.received_at >= %(start)s AND k.received_at < %(end)s OFFSET 0))

-- name: platform_sums
-- The platform's output by place: a tenant's share of all hashes of identities. For the window: the number of rows and
-- an XOR of their identities. For the wider range that holds the legacy pipeline's rows: the number of rows and an XOR
-- of their digests. It reads both tables and not account.delivered, which would copy each row once more.
CREATE TEMPORARY TABLE platform_sums ON COMMIT DROP AS
SELECT place, count(*) FILTER (WHERE is_inside) AS events, bit_xor(identity) FILTER (WHERE is_inside) AS identities,
       count(*) AS near, bit_xor(digest) AS digests
FROM (
    SELECT reconcile.place(tenant_id, event_id, %(bits)s) AS place, uuid_hash_extended(event_id, tenant_id) AS identity,
           received_at >= %(start)s AND received_at < %(end)s AS is_inside,
           coalesce(CASE WHEN %(is_kept)s THEN digest END,
                    reconcile.digest(%(compared)s::text[], tenant_id, event_id, type, name, user_id, anonymous_id, group_id,
                                     previous_id, message_id, occurred_at, properties, traits, context)) AS digest
    FROM analytics.events
    WHERE received_at >= %(from)s AND received_at < %(until)s AND epoch = ANY(%(epochs)s::integer[])
    UNION ALL
    SELECT reconcile.place(tenant_id, event_id, %(bits)s) AS place, uuid_hash_extended(event_id, tenant_id) AS identity,
           received_at >= %(start)s AND received_at < %(end)s AS is_inside,
           coalesce(CASE WHEN %(is_kept)s THEN digest END,
                    reconcile.digest(%(compared)s::text[], tenant_id, event_id, type, name, user_id, anonymous_id, group_id,
                                     previous_id, message_id, occurred_at, properties, traits, context)) AS digest
    FROM shadow.events
    WHERE received_at >= %(from)s AND received_at < %(until)s AND epoch = ANY(%(epochs)s::integer[])
) AS d
GROUP BY place

-- name: legacy_sums
-- The same sums of the legacy pipeline's output. Rows of the user's own table without a tenant or an event are ignored.
-- The branch without rows prevents a wrong estimate: the planner would take the number of events for the number of
-- places, and would not aggregate in parallel.
CREATE TEMPORARY TABLE legacy_sums ON COMMIT DROP AS
SELECT place, count(*) AS near, bit_xor(digest) AS digests
FROM (
    SELECT reconcile.place(tenant_id, event_id, %(bits)s) AS place,
           coalesce(CASE WHEN %(is_kept)s THEN digest END,
                    reconcile.digest(%(compared)s::text[], tenant_id, event_id, type, name, user_id, anonymous_id, group_id,
                                     previous_id, message_id, occurred_at, properties, traits, context)) AS digest
    FROM legacy.output
    WHERE received_at >= %(from)s AND received_at < %(until)s AND tenant_id IS NOT NULL AND event_id IS NOT NULL
    UNION ALL
    SELECT NULL::bigint, NULL::bigint WHERE false
) AS l
GROUP BY place

-- name: is_even
-- Whether the platform delivered in the window exactly the events that were accepted in it, each once, by the sums of
-- the batches. False also if a batch has no sum: then the events themselves are added up.
SELECT coalesce(a.is_known AND (a.events, a.identities) = (p.events, p.identities), false)
FROM (SELECT bool_and(identities IS NOT NULL) AS is_known, sum(events) AS events, bit_xor(identities) AS identities
      FROM queue.batches
      WHERE received_at >= %(start)s AND received_at < %(end)s AND epoch = ANY(%(epochs)s::integer[])) AS a
CROSS JOIN (SELECT sum(events) AS events, bit_xor(identities) AS identities FROM platform_sums) AS p

-- name: accepted_sums
-- The identities that were accepted in the window, by place.
CREATE TEMPORARY TABLE accepted_sums ON COMMIT DROP AS
SELECT reconcile.place(e.tenant_id, e.event_id, %(bits)s) AS place, count(*) AS events,
       bit_xor(uuid_hash_extended(e.event_id, e.tenant_id)) AS identities
FROM queue.batches AS b CROSS JOIN LATERAL unnest(b.tenant_ids, b.event_ids) AS e(tenant_id, event_id)
WHERE b.received_at >= %(start)s AND b.received_at < %(end)s AND b.epoch = ANY(%(epochs)s::integer[])
GROUP BY 1

-- name: unlike
-- Places where the outputs differ or the legacy pipeline has an event twice. An identity has one row on the platform,
-- so equal numbers and equal XORs mean that both sides have the same events, each once.
SELECT place
FROM platform_sums AS p FULL JOIN legacy_sums AS l USING (place)
WHERE (p.near, p.digests) IS DISTINCT FROM (l.near, l.digests)

-- name: uneven
-- Places where the accepted identities differ from the delivered ones: an event was sent twice, or is missing.
SELECT place
FROM accepted_sums AS a LEFT JOIN platform_sums AS p USING (place)
WHERE (a.events, a.identities) IS DISTINCT FROM (p.events, p.identities)

-- name: differing
-- In the unlike places, every identity of the window that is on one side only or has different content. It is one hash
-- join. Equal events leave no row. It reads the legacy pipeline's rows from about the time of the platform's rows.
-- Earlier and later ones are looked up afterwards, by key.
CREATE TEMPORARY TABLE differing ON COMMIT DROP AS
SELECT tenant_id, event_id, p.received_at, p.batch_id, p.is_shadow, p.is_recovered, p.digest IS NOT NULL AS is_platforms,
       l.digest IS NOT NULL AS is_legacys, l.is_inside, coalesce(p.received_at, l.arrived_at) AS known_at
FROM (
    SELECT tenant_id, event_id, received_at, batch_id, is_shadow, recovery_id IS NOT NULL AS is_recovered,
           coalesce(CASE WHEN %(is_kept)s THEN digest END,
                    reconcile.digest(%(compared)s::text[], tenant_id, event_id, type, name, user_id, anonymous_id, group_id,
                                     previous_id, message_id, occurred_at, properties, traits, context)) AS digest
    FROM account.delivered
    WHERE received_at >= %(start)s AND received_at < %(end)s AND epoch = ANY(%(epochs)s::integer[])
      AND reconcile.place(tenant_id, event_id, %(bits)s) = ANY(%(unlike)s::bigint[])
) AS p
FULL JOIN (
    SELECT tenant_id, event_id, received_at >= %(start)s AND received_at < %(end)s AS is_inside,
           received_at AS arrived_at,
           coalesce(CASE WHEN %(is_kept)s THEN digest END,
                    reconcile.digest(%(compared)s::text[], tenant_id, event_id, type, name, user_id, anonymous_id, group_id,
                                     previous_id, message_id, occurred_at, properties, traits, context)) AS digest
    FROM legacy.output
    WHERE received_at >= %(from)s AND received_at < %(until)s
      AND reconcile.place(tenant_id, event_id, %(bits)s) = ANY(%(unlike)s::bigint[])
) AS l USING (tenant_id, event_id)
WHERE p.digest IS DISTINCT FROM l.digest

-- name: undelivered
-- In the uneven places, the identities without a row of the platform in this window.
CREATE TEMPORARY TABLE undelivered ON COMMIT DROP AS
SELECT a.tenant_id, a.event_id, max(a.batch_id) AS batch_id, max(a.received_at) AS known_at
FROM (
    SELECT * FROM (
        SELECT unnest(tenant_ids) AS tenant_id, unnest(event_ids) AS event_id, batch_id, received_at FROM queue.batches
        WHERE received_at >= %(start)s AND received_at < %(end)s AND epoch = ANY(%(epochs)s::integer[])
          -- A constant for the planner: without uneven places no batch is read.
          AND cardinality(%(uneven)s::bigint[]) > 0
    ) AS e
    WHERE reconcile.place(tenant_id, event_id, %(bits)s) = ANY(%(uneven)s::bigint[])
) AS a
LEFT JOIN (
    SELECT tenant_id, event_id FROM account.delivered
    WHERE received_at >= %(start)s AND received_at < %(end)s AND epoch = ANY(%(epochs)s::integer[])
      AND reconcile.place(tenant_id, event_id, %(bits)s) = ANY(%(uneven)s::bigint[])
) AS p USING (tenant_id, event_id)
WHERE p.event_id IS NULL
GROUP BY a.tenant_id, a.event_id

-- name: unknown
-- Events that the platform has not delivered in this window, although they were accepted here or the legacy pipeline
-- has them.
CREATE TEMPORARY TABLE unknown ON COMMIT DROP AS
SELECT tenant_id, event_id, u.batch_id, u.event_id IS NOT NULL AS is_accepted, l.event_id IS NOT NULL AS is_legacys,
       false AS is_elsewhere, NULL::text AS fate, coalesce(u.known_at, l.known_at) AS known_at
FROM undelivered AS u
FULL JOIN (SELECT tenant_id, event_id, min(known_at) AS known_at FROM differing WHERE NOT is_platforms AND is_inside
           GROUP BY tenant_id, event_id) AS l
    USING (tenant_id, event_id)

-- name: elsewhere
-- Finds those that the platform delivered in another window: sent again, or arrived late at the legacy pipeline. An
-- identity key counts only with its row: an event whose row is gone is missing.
UPDATE unknown AS u SET is_elsewhere = true
WHERE EXISTS (
    SELECT FROM analytics.keys AS k
    JOIN account.delivered AS d
      ON d.tenant_id = k.tenant_id AND d.received_at = k.received_at AND d.event_id = k.event_id
    WHERE k.tenant_id = u.tenant_id AND k.event_id = u.event_id OFFSET 0)

-- name: elsewhere_before
-- Finds those that the platform delivered before its oldest identity keys. This reads all older rows.
UPDATE unknown AS u SET is_elsewhere = true
FROM account.delivered AS d
WHERE NOT u.is_elsewhere AND d.tenant_id = u.tenant_id AND d.event_id = u.event_id
  AND d.delivered_at < (SELECT min(opened_at) FROM analytics.key_generations)

-- name: oldest_generation
-- The oldest generation of identity keys.
SELECT min(generation) FROM analytics.key_generations

-- name: fates
-- What the platform knows of the others: in flight, waiting for the mirror, a dead letter, or discarded by name.
UPDATE unknown AS u SET fate = f.fate
FROM (
    SELECT tenant_id, event_id, (array_agg(fate ORDER BY place))[1] AS fate
    FROM (
        SELECT tenant_id, event_id, 1 AS place, 'in_flight' AS fate
        FROM queue.work AS w
        JOIN queue.batches AS b ON b.batch_id = w.batch_id AND b.received_at = w.received_at
        CROSS JOIN LATERAL unnest(b.tenant_ids[w.first_event + 1:w.end_event], b.event_ids[w.first_event + 1:w.end_event])
            AS e(tenant_id, event_id)
        UNION ALL
        SELECT tenant_id, event_id, 3, CASE state WHEN 'discarded' THEN 'discarded' ELSE 'dead_lettered' END
        FROM queue.dead_letters WHERE state IN ('waiting', 'exhausted', 'discarded')
        UNION ALL
        SELECT tenant_id, event_id, 3, 'discarded' FROM control.erased_events
        UNION ALL
        SELECT u.tenant_id, u.event_id, 2, 'in_mirror'
        FROM unknown AS u JOIN queue.mirror USING (batch_id) WHERE NOT u.is_legacys
    ) AS known
    WHERE (tenant_id, event_id) IN (SELECT tenant_id, event_id FROM unknown WHERE NOT is_elsewhere)
    GROUP BY tenant_id, event_id
) AS f
WHERE u.tenant_id = f.tenant_id AND u.event_id = f.event_id AND NOT u.is_elsewhere

-- name: late
-- Rows of the legacy pipeline outside the range, for events that the platform delivered in this window, and its rows of
-- any time for events that were accepted here and not delivered.
CREATE TEMPORARY TABLE late ON COMMIT DROP AS
SELECT d.tenant_id, d.event_id, true AS is_platforms, o.received_at
FROM differing AS d JOIN legacy.output AS o USING (tenant_id, event_id)
WHERE d.is_platforms AND NOT d.is_legacys AND (o.received_at < %(from)s OR o.received_at >= %(until)s)
UNION ALL
SELECT u.tenant_id, u.event_id, false, o.received_at
FROM unknown AS u JOIN legacy.output AS o USING (tenant_id, event_id)
WHERE u.is_accepted AND NOT u.is_legacys AND NOT u.is_elsewhere

-- name: late_range
-- The range of time that includes the late rows.
SELECT least(min(received_at), %(from)s), greatest(max(received_at) + interval '1 us', %(until)s) FROM late WHERE is_platforms

-- name: both_have
-- The events with a row on both sides whose contents may differ.
CREATE TEMPORARY TABLE both_have ON COMMIT DROP AS
SELECT DISTINCT tenant_id, event_id, d.received_at
FROM differing AS d LEFT JOIN (SELECT DISTINCT tenant_id, event_id FROM late) AS l USING (tenant_id, event_id)
WHERE d.is_platforms AND (d.is_legacys OR l.event_id IS NOT NULL)

-- name: fields
-- The differences of these events, field by field. If the legacy pipeline has several rows of an event, one equal row
-- is enough. The others count as further rows of that event.
CREATE TEMPORARY TABLE mismatched ON COMMIT DROP AS
WITH contents AS MATERIALIZED (
    SELECT b.tenant_id, b.event_id, b.received_at AS known_at, o.received_at AS arrived_at, to_jsonb(p) AS ours,
           to_jsonb(o) AS theirs
    FROM both_have AS b
    JOIN account.delivered AS p
      ON p.tenant_id = b.tenant_id AND p.received_at = b.received_at AND p.event_id = b.event_id
    JOIN legacy.output AS o ON o.tenant_id = b.tenant_id AND o.event_id = b.event_id
    WHERE p.received_at >= %(start)s AND p.received_at < %(end)s
      AND o.received_at >= %(from)s AND o.received_at < %(until)s
), row_pair AS MATERIALIZED (
    SELECT tenant_id, event_id, known_at, arrived_at, (
        SELECT coalesce(jsonb_object_agg(f.field, jsonb_build_object(
            'platform', reconcile.shape(f.our_value), 'legacy', reconcile.shape(f.their_value))), '{}')
        FROM reconcile.differing_fields(%(compared)s::text[], ours, theirs) AS f) AS samples
    FROM contents
)
SELECT * FROM (
    SELECT DISTINCT ON (tenant_id, event_id) tenant_id, event_id, samples, known_at
    FROM row_pair ORDER BY tenant_id, event_id, samples <> '{}', arrived_at
) AS closest
WHERE samples <> '{}'

-- name: verdicts
-- Each event that differs, and where it was lost. Events that wait for the mirror are not judged.
CREATE TEMPORARY TABLE verdicts ON COMMIT DROP AS
WITH dropped AS MATERIALIZED (
    SELECT d.tenant_id, d.event_id, d.is_shadow, d.is_recovered, d.known_at, m.batch_id IS NOT NULL AS is_in_mirror
    FROM differing AS d
    LEFT JOIN (SELECT DISTINCT tenant_id, event_id FROM late) AS l USING (tenant_id, event_id)
    LEFT JOIN (SELECT DISTINCT batch_id FROM queue.mirror) AS m USING (batch_id)
    WHERE d.is_platforms AND NOT d.is_legacys AND l.event_id IS NULL
), never AS MATERIALIZED (
    SELECT u.tenant_id, u.event_id, u.known_at
    FROM unknown AS u LEFT JOIN (SELECT DISTINCT tenant_id, event_id FROM late) AS l USING (tenant_id, event_id)
    WHERE u.is_accepted AND NOT u.is_legacys AND NOT u.is_elsewhere AND l.event_id IS NULL
      AND (u.fate IS NULL OR u.fate = 'dead_lettered')
), lost AS (
    SELECT DISTINCT ON (tenant_id, event_id) tenant_id, event_id, l.stage
    FROM legacy.losses AS l
    JOIN (SELECT tenant_id, event_id FROM dropped UNION ALL SELECT tenant_id, event_id FROM never) AS d
        USING (tenant_id, event_id)
    ORDER BY tenant_id, event_id, l.lost_at DESC
)
SELECT d.tenant_id, d.event_id, k.kind, coalesce(lost.stage, 'unreported') AS stage, NULL::jsonb AS samples,
       d.is_recovered, d.known_at
FROM dropped AS d LEFT JOIN lost USING (tenant_id, event_id)
CROSS JOIN (VALUES ('dropped'), ('missing'), ('in_mirror')) AS k(kind)
WHERE CASE WHEN d.is_in_mirror THEN k.kind = 'in_mirror' ELSE k.kind = 'dropped' OR (k.kind = 'missing' AND d.is_shadow)
      END
UNION ALL
SELECT n.tenant_id, n.event_id, 'missing', coalesce(lost.stage, 'unreported'), NULL, false, n.known_at
FROM never AS n LEFT JOIN lost USING (tenant_id, event_id)
UNION ALL
SELECT tenant_id, event_id, 'extra',
       coalesce(fate, CASE WHEN is_accepted THEN 'undelivered' ELSE 'not_accepted' END), NULL, false, known_at
FROM unknown WHERE is_legacys AND NOT is_elsewhere AND (fate IS NULL OR fate = 'dead_lettered')
UNION ALL
SELECT tenant_id, event_id, 'mismatched', NULL, samples, false, known_at FROM mismatched

-- name: counts
-- Numbers by tenant. The caller combines them by name.
SELECT (place >> %(bits)s)::integer AS tenant_id, 'platform' AS number, sum(events)::bigint AS events
FROM platform_sums WHERE events > 0 GROUP BY 1
UNION ALL
SELECT tenant_id, kind, count(*) FROM verdicts GROUP BY tenant_id, kind
UNION ALL
SELECT tenant_id, 'recovered', count(*) FROM verdicts WHERE kind = 'dropped' AND is_recovered GROUP BY tenant_id
UNION ALL
SELECT tenant_id, 'undelivered', count(*) FROM unknown
WHERE is_accepted AND NOT is_elsewhere GROUP BY tenant_id
UNION ALL
SELECT tenant_id, 'fate_' || fate, count(*) FROM unknown
WHERE is_accepted AND NOT is_elsewhere AND fate IS NOT NULL GROUP BY tenant_id, fate
UNION ALL
SELECT tenant_id, 'elsewhere', count(*) FROM unknown WHERE is_accepted AND is_elsewhere GROUP BY tenant_id
UNION ALL
-- Rows of the legacy pipeline that match a row of the platform, minus the events that they match: further rows. In
-- places where the outputs are alike, each event of the window matches one row.
SELECT (place >> %(bits)s)::integer, 'legacy_rows',
       sum(CASE WHEN place = ANY(%(unlike)s::bigint[]) THEN coalesce(l.near, 0) ELSE p.events END)::bigint
FROM platform_sums AS p FULL JOIN legacy_sums AS l USING (place) GROUP BY 1
UNION ALL
SELECT tenant_id, 'unmet_rows', count(*) FROM differing WHERE NOT is_platforms GROUP BY tenant_id
UNION ALL
SELECT tenant_id, 'unmet_events', count(*) FROM differing WHERE NOT is_legacys GROUP BY tenant_id
UNION ALL
SELECT tenant_id, 'late_rows', count(*) FROM late WHERE is_platforms GROUP BY tenant_id
UNION ALL
SELECT tenant_id, 'late_events', count(DISTINCT event_id) FROM late WHERE is_platforms GROUP BY tenant_id

-- name: stages
-- Dropped events by stage.
SELECT stage, count(*) FROM verdicts WHERE kind = 'dropped' GROUP BY stage ORDER BY count(*) DESC, stage

-- name: field_counts
-- The number of mismatched events by field.
SELECT field, count(*) FROM mismatched CROSS JOIN LATERAL jsonb_object_keys(samples) AS field
GROUP BY field ORDER BY count(*) DESC, field

-- name: samples
-- Samples of the events that differ, by kind.
SELECT v.kind, coalesce(t.name, v.tenant_id::text) AS tenant, v.event_id::text, v.stage, v.samples AS fields
FROM (SELECT *, row_number() OVER (PARTITION BY kind ORDER BY event_id, tenant_id) AS place
      FROM verdicts WHERE kind <> 'in_mirror') AS v
LEFT JOIN control.tenants AS t USING (tenant_id)
WHERE v.place <= %(samples)s
ORDER BY v.kind, v.place

-- name: coverage
-- What limits the comparison: dropped hours, the time since the last delivery of the legacy pipeline, and its reported
-- losses.
SELECT (SELECT count(*) FROM queue.hours
        WHERE hour < %(end)s AND hour > %(start)s - interval '1 hour' AND dropped_at IS NOT NULL) AS hours_past_retention,
       (SELECT extract(epoch FROM clock_timestamp() - max(received_at))::float8 FROM legacy.output
        WHERE received_at >= %(from)s AND received_at < %(until)s) AS seconds_since_last_delivery,
       (SELECT coalesce(jsonb_object_agg(stage, failed), '{}') FROM (
            SELECT stage, sum(failed) AS failed FROM legacy.stage_counts
            WHERE hour < %(end)s AND hour > %(start)s - interval '1 hour' GROUP BY stage) AS s) AS reported_lost

-- name: unknown_rows
-- Rows of the legacy pipeline that belong to no event: of the window without a known tenant or an identity, and of any
-- time without a time.
SELECT (SELECT count(*) FROM legacy.output
        WHERE received_at >= %(start)s AND received_at < %(end)s AND (tenant_id IS NULL OR event_id IS NULL)),
       (SELECT count(*) FROM legacy.output WHERE received_at IS NULL)

-- name: tenant_names
-- The names of all tenants.
SELECT tenant_id, name FROM control.tenants

-- name: forget
-- Deletes the earlier results of the same window, and those of its parts. A settled part stays where the new result is
-- not settled.
WITH gone AS (
    DELETE FROM reconcile.windows
    WHERE window_start >= %(start)s AND window_end <= %(end)s
      AND (%(is_settled)s OR NOT is_settled OR (window_start = %(start)s AND window_end = %(end)s))
    RETURNING window_start, window_end
), differences AS (
    DELETE FROM reconcile.differences AS d USING gone
    WHERE d.window_start = gone.window_start AND d.window_end = gone.window_end
)
DELETE FROM reconcile.results AS r USING gone
WHERE r.window_start = gone.window_start AND r.window_end = gone.window_end

-- name: supersede
-- Deletes what earlier windows, which reach beyond this one, say of events of this one, and counts the rest of them
-- again. So an event has one current verdict.
WITH gone AS (
    DELETE FROM reconcile.differences
    WHERE received_at >= %(start)s AND received_at < %(end)s AND window_start < %(end)s AND window_end > %(start)s
    RETURNING window_start, window_end, tenant_id, kind
), fewer AS (
    SELECT window_start, window_end, tenant_id, count(*) FILTER (WHERE kind = 'missing') AS missing,
           count(*) FILTER (WHERE kind = 'extra') AS extra, count(*) FILTER (WHERE kind = 'mismatched') AS mismatched,
           count(*) FILTER (WHERE kind = 'dropped') AS dropped
    FROM gone GROUP BY 1, 2, 3
)
UPDATE reconcile.results AS r
SET missing = greatest(r.missing - f.missing, 0), extra = greatest(r.extra - f.extra, 0),
    mismatched = greatest(r.mismatched - f.mismatched, 0), dropped = greatest(r.dropped - f.dropped, 0)
FROM fewer AS f
WHERE r.window_start = f.window_start AND r.window_end = f.window_end AND r.tenant_id = f.tenant_id

-- name: store_differences
-- Stores the events that differ.
INSERT INTO reconcile.differences (window_start, window_end, tenant_id, event_id, kind, stage, fields, samples, received_at)
SELECT %(start)s, %(end)s, tenant_id, event_id, kind, stage,
       (SELECT jsonb_agg(field ORDER BY field) FROM jsonb_object_keys(samples) AS field), samples, known_at
FROM verdicts WHERE kind <> 'in_mirror'
ORDER BY tenant_id, kind, event_id

-- name: store_result
-- Stores the numbers of each tenant.
INSERT INTO reconcile.results (window_start, window_end, tenant_id, accepted, platform, legacy, matched, mismatched,
                               dropped, extra, missing, duplicates, recovered)
SELECT %(start)s, %(end)s, r.*
FROM unnest(%(tenant_id)s::integer[], %(accepted)s::bigint[], %(platform)s::bigint[], %(legacy)s::bigint[],
            %(matched)s::bigint[], %(mismatched)s::bigint[], %(dropped)s::bigint[], %(extra)s::bigint[],
            %(missing)s::bigint[], %(duplicates)s::bigint[], %(recovered)s::bigint[]) AS r

-- name: store_window
-- Stores the window.
INSERT INTO reconcile.windows (window_start, window_end, is_settled, seconds, coverage)
VALUES (%(start)s, %(end)s, %(is_settled)s, %(seconds)s, %(coverage)s)

-- name: export_results
-- The stored numbers of a window, for export.
SELECT r.window_start, r.window_end, w.is_settled, r.tenant_id, coalesce(t.name, r.tenant_id::text) AS tenant, r.accepted,
       r.platform, r.legacy, r.matched, r.mismatched, r.dropped, r.extra, r.missing, r.duplicates, r.recovered
FROM reconcile.results AS r
JOIN reconcile.windows AS w USING (window_start, window_end)
LEFT JOIN control.tenants AS t USING (tenant_id)
WHERE window_start = %(start)s AND window_end = %(end)s
ORDER BY r.tenant_id

-- name: export_differences
-- The stored differences of a window, for export.
SELECT d.window_start, d.window_end, d.tenant_id, coalesce(t.name, d.tenant_id::text) AS tenant, d.event_id::text,
       d.kind, d.stage, d.fields::text, d.samples::text
FROM reconcile.differences AS d LEFT JOIN control.tenants AS t USING (tenant_id)
WHERE window_start = %(start)s AND window_end = %(end)s
ORDER BY d.kind, d.tenant_id, d.event_id

-- name: settled_until
-- The end of the latest window that can have settled.
SELECT clock_timestamp() - make_interval(secs => settle_s) FROM control.legacy_target
