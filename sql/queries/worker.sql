-- name: enter_keys
-- Takes the lock of those who write identity keys.
SELECT pg_advisory_xact_lock_shared(analytics.key_lock())

-- name: load
-- Loads processed events into the events of one schema: analytics, or shadow for events of a shadow epoch.
WITH open_generation AS MATERIALIZED (SELECT max(generation) AS generation FROM analytics.key_generations),
input AS MATERIALIZED (
    SELECT *
    FROM unnest(%(tenant_id)s::integer[], %(event_id)s::uuid[], %(is_first)s::boolean[], %(lane)s::text[],
                %(batch_received_at)s::timestamptz[], %(batch_id)s::bigint[], %(message_id)s::text[], %(type)s::text[],
                %(name)s::text[], %(user_id)s::text[], %(anonymous_id)s::text[], %(group_id)s::text[],
                %(previous_id)s::text[], %(occurred_at)s::timestamptz[], %(received_at)s::timestamptz[],
                %(properties)s::jsonb[], %(traits)s::jsonb[], %(context)s::jsonb[], %(tenant_name)s::text[],
                %(tenant_plan)s::text[], %(user_traits)s::jsonb[], %(group_traits)s::jsonb[], %(epoch)s::integer[],
                %(is_measured)s::boolean[], %(rest)s::jsonb[])
        AS i(tenant_id, event_id, is_first, lane, batch_received_at, batch_id, message_id, type, name, user_id,
             anonymous_id, group_id, previous_id, occurred_at, received_at, properties, traits, context, tenant_name,
             tenant_plan, user_traits, group_traits, epoch, is_measured, rest)
), judged AS MATERIALIZED (
    SELECT i.tenant_id, i.event_id, i.received_at,
           -- One index probe per identity key. A join could be planned as a scan of all identity keys.
           (SELECT old.received_at FROM analytics.keys AS old
            WHERE old.tenant_id = i.tenant_id AND old.event_id = i.event_id
              AND old.generation < (SELECT generation FROM open_generation)
            LIMIT 1) AS known_at
    FROM input AS i
    WHERE i.is_first
), fresh AS (
    INSERT INTO analytics.keys (generation, tenant_id, event_id, received_at)
    SELECT (SELECT generation FROM open_generation), tenant_id, event_id, received_at
    FROM judged
    WHERE known_at IS NULL
    -- The same order in all workers: two workers with the same events wait for each other and do not deadlock.
    ORDER BY tenant_id, event_id
    ON CONFLICT DO NOTHING
    RETURNING tenant_id, event_id
), carried AS (
    -- A duplicate copies its identity key into the open generation, so that the identity stays known for longer.
    INSERT INTO analytics.keys (generation, tenant_id, event_id, received_at)
    SELECT (SELECT generation FROM open_generation), tenant_id, event_id, known_at
    FROM judged
    WHERE known_at IS NOT NULL
    ORDER BY tenant_id, event_id
    ON CONFLICT DO NOTHING
), loaded AS (
    INSERT INTO {schema}.events (
        tenant_id, event_id, message_id, type, name, user_id, anonymous_id, group_id, previous_id, occurred_at,
        received_at, delivered_at, properties, traits, context, tenant_name, tenant_plan, user_traits, group_traits,
        batch_id, epoch, rest, digest)
    SELECT i.tenant_id, i.event_id, i.message_id, i.type, i.name, i.user_id, i.anonymous_id, i.group_id,
           i.previous_id, i.occurred_at, i.received_at, clock_timestamp(), i.properties, i.traits, i.context,
           i.tenant_name, i.tenant_plan, i.user_traits, i.group_traits, i.batch_id, i.epoch, i.rest,
           -- Only rows that will be compared get a digest.
           CASE WHEN i.epoch = ANY(ARRAY(SELECT epoch FROM control.epochs WHERE is_mirrored)) THEN
               reconcile.digest(reconcile.kept_columns(), i.tenant_id, i.event_id, i.type, i.name, i.user_id,
                                i.anonymous_id, i.group_id, i.previous_id, i.message_id, i.occurred_at, i.properties,
                                i.traits, i.context) END
    FROM input AS i JOIN fresh USING (tenant_id, event_id)
    WHERE i.is_first
    RETURNING tenant_id, event_id, greatest(extract(epoch FROM delivered_at - received_at)::float8, 0) AS seconds
), measured AS (
    INSERT INTO account.latency_deltas (lane, bucket, events, seconds)
    SELECT i.lane::queue.lane, account.latency_bucket(l.seconds), count(*), sum(l.seconds)
    FROM loaded AS l JOIN input AS i USING (tenant_id, event_id)
    WHERE i.is_first AND i.is_measured
    GROUP BY 1, 2
), counted AS (
    INSERT INTO account.deltas (tenant_id, hour, lane, in_flight, dead_lettered, claimed, enriched, delivered, duplicate)
    SELECT i.tenant_id, date_trunc('hour', i.batch_received_at, 'UTC'), i.lane::queue.lane,
           CASE WHEN %(redelivery)s THEN 0 ELSE -count(*) END, CASE WHEN %(redelivery)s THEN -count(*) ELSE 0 END,
           CASE WHEN %(redelivery)s THEN 0 ELSE count(*) END, CASE WHEN %(adds_enriched)s THEN count(*) ELSE 0 END,
           count(f.event_id), count(*) - count(f.event_id)
    FROM input AS i
    LEFT JOIN fresh AS f ON f.tenant_id = i.tenant_id AND f.event_id = i.event_id AND i.is_first
    GROUP BY 1, 2, 3
)
SELECT count(*) FROM loaded

-- name: bury
-- Stores events that failed as dead letters.
WITH input AS MATERIALIZED (
    SELECT *
    FROM unnest(%(tenant_id)s::integer[], %(event_id)s::uuid[], %(message_id)s::text[], %(type)s::text[],
                %(lane)s::text[], %(batch_id)s::bigint[], %(event_index)s::integer[],
                %(batch_received_at)s::timestamptz[], %(received_at)s::timestamptz[], %(client_at)s::timestamptz[],
                %(envelope)s::bytea[], %(payload)s::bytea[], %(failed_in)s::text[], %(error_class)s::text[],
                %(error)s::text[], %(fingerprint)s::text[], %(attempts)s::integer[], %(next_attempt_at)s::timestamptz[],
                %(epoch)s::integer[])
        AS i(tenant_id, event_id, message_id, type, lane, batch_id, event_index, batch_received_at, received_at,
             client_at, envelope, payload, failed_in, error_class, error, fingerprint, attempts, next_attempt_at, epoch)
), buried AS (
    INSERT INTO queue.dead_letters (
        tenant_id, event_id, message_id, type, lane, batch_id, event_index, batch_received_at, received_at, client_at,
        envelope, payload, failed_in, error_class, error, fingerprint, state, attempts, next_attempt_at, epoch)
    SELECT tenant_id, event_id, message_id, type::"char", lane::queue.lane, batch_id, event_index, batch_received_at,
           received_at, client_at, envelope, payload, failed_in, error_class, error, fingerprint,
           CASE WHEN next_attempt_at IS NULL THEN 'exhausted' ELSE 'waiting' END, attempts, next_attempt_at, epoch
    FROM input
)
INSERT INTO account.deltas (tenant_id, hour, lane, in_flight, claimed, enriched, dead_lettered)
SELECT tenant_id, date_trunc('hour', batch_received_at, 'UTC'), lane::queue.lane, -count(*), count(*),
       count(*) FILTER (WHERE failed_in = 'load'), count(*)
FROM input GROUP BY 1, 2, 3

-- name: discard_erased
-- Discards events that were erased while they waited. Their places in the queue are empty.
WITH met AS MATERIALIZED (
    SELECT i.tenant_id, i.lane, i.batch_id, i.event_index, x.batch_received_at
    FROM unnest(%(tenant_id)s::integer[], %(lane)s::text[], %(batch_id)s::bigint[], %(event_index)s::integer[])
        AS i(tenant_id, lane, batch_id, event_index)
    JOIN control.erased_events AS x
      ON x.tenant_id = i.tenant_id AND x.batch_id = i.batch_id AND x.event_index = i.event_index
    WHERE x.was = 'in_flight'
), counted AS (
    INSERT INTO account.deltas (tenant_id, hour, lane, in_flight, claimed, discarded)
    SELECT tenant_id, date_trunc('hour', batch_received_at, 'UTC'), lane::queue.lane, -count(*), count(*), count(*)
    FROM met GROUP BY 1, 2, 3
)
SELECT batch_id, event_index FROM met

-- name: any_due_dead_letter
-- Whether any dead letter is due.
SELECT EXISTS (SELECT FROM queue.dead_letters WHERE state = 'waiting' AND next_attempt_at <= clock_timestamp())

-- name: due_dead_letters
-- Locks due dead letters that never killed a worker: up to so many, and as long as they have less than so many bytes.
WITH due AS MATERIALIZED (
    SELECT d.*, e.is_shadow, octet_length(payload) + coalesce(octet_length(envelope), 0) AS bytes
    FROM queue.dead_letters AS d JOIN control.epochs AS e USING (epoch)
    WHERE state = 'waiting' AND next_attempt_at <= clock_timestamp() AND deaths = 0
    ORDER BY next_attempt_at
    LIMIT %s
    FOR UPDATE OF d SKIP LOCKED
)
SELECT dead_letter_id, attempts, failed_in, deaths, tenant_id, event_id, type::text, client_at, received_at, payload,
       coalesce(envelope, ''), lane::text, batch_id, event_index, batch_received_at, epoch, is_shadow
FROM (SELECT *, sum(bytes) OVER (ORDER BY next_attempt_at, dead_letter_id) AS all_bytes FROM due) AS sized
WHERE all_bytes - bytes < %s
ORDER BY next_attempt_at, dead_letter_id

-- name: due_suspect_letters
-- Locks one due dead letter that was held when a worker died.
SELECT dead_letter_id, attempts, failed_in, deaths, tenant_id, event_id, type::text, client_at, received_at, payload,
       coalesce(envelope, ''), lane::text, batch_id, event_index, batch_received_at, d.epoch, e.is_shadow
FROM queue.dead_letters AS d JOIN control.epochs AS e USING (epoch)
WHERE state = 'waiting' AND next_attempt_at <= clock_timestamp() AND deaths > 0
ORDER BY next_attempt_at
LIMIT 1
FOR UPDATE OF d SKIP LOCKED

-- name: count_death_of_letters
-- Counts the death of a worker for the dead letters that it held. again_at: the next attempt of a letter that was held
-- alone. Its attempt counts. A letter that another worker holds is not counted. If that worker dies too, its own note
-- counts it.
UPDATE queue.dead_letters AS d SET
    deaths = deaths + 1,
    attempts = d.attempts + CASE WHEN %(again_at)s::timestamptz IS NULL THEN 0 ELSE 1 END,
    next_attempt_at = coalesce(%(again_at)s, d.next_attempt_at)
FROM (
    SELECT own.tenant_id, own.dead_letter_id
    FROM queue.dead_letters AS own
    JOIN unnest(%(tenant_id)s::integer[], %(dead_letter_id)s::bigint[], %(attempts)s::integer[])
        AS held(tenant_id, dead_letter_id, attempts) USING (tenant_id, dead_letter_id)
    WHERE own.state = 'waiting' AND own.attempts = held.attempts AND own.attempts < 100
    FOR UPDATE OF own SKIP LOCKED
) AS free
WHERE d.tenant_id = free.tenant_id AND d.dead_letter_id = free.dead_letter_id

-- name: exhaust_dead_letter
-- Exhausts a dead letter.
UPDATE queue.dead_letters SET
    state = 'exhausted', next_attempt_at = NULL, error_class = %(error_class)s, error = %(error)s,
    fingerprint = %(fingerprint)s
WHERE tenant_id = %(tenant_id)s AND dead_letter_id = %(dead_letter_id)s

-- name: resolve_dead_letters
-- Resolves dead letters as delivered or duplicate.
UPDATE queue.dead_letters AS d SET
    state = CASE WHEN %(delivered)s THEN 'delivered' ELSE 'duplicate' END, next_attempt_at = NULL, resolved_at = now(),
    attempts = attempts + 1
FROM unnest(%(tenant_id)s::integer[], %(dead_letter_id)s::bigint[]) AS i(tenant_id, dead_letter_id)
WHERE d.tenant_id = i.tenant_id AND d.dead_letter_id = i.dead_letter_id

-- name: postpone_dead_letter
-- Counts a failed attempt of a dead letter and schedules the next one.
WITH counted AS (
    INSERT INTO account.deltas (tenant_id, hour, lane, enriched)
    SELECT tenant_id, date_trunc('hour', batch_received_at, 'UTC'), lane, 1
    FROM queue.dead_letters
    WHERE tenant_id = %(tenant_id)s AND dead_letter_id = %(dead_letter_id)s
      AND failed_in <> 'load' AND %(failed_in)s = 'load'
)
UPDATE queue.dead_letters SET
    attempts = attempts + 1, deaths = 0,
    -- It counts as enriched when it first reaches the load. A later failure in an earlier part must not count it again.
    failed_in = CASE WHEN failed_in = 'load' THEN failed_in ELSE %(failed_in)s END,
    error_class = %(error_class)s, error = %(error)s, fingerprint = %(fingerprint)s,
    next_attempt_at = %(next_attempt_at)s,
    state = CASE WHEN %(next_attempt_at)s::timestamptz IS NULL THEN 'exhausted' ELSE 'waiting' END
WHERE tenant_id = %(tenant_id)s AND dead_letter_id = %(dead_letter_id)s

-- name: alert_exhausted
-- Opens the alert of exhausted dead letters, or counts one more in it.
INSERT INTO control.alerts AS a (kind, fingerprint, tenant_id, message, sample_id)
VALUES ('dead_letter_exhausted', %(fingerprint)s, %(tenant_id)s, %(message)s, %(event_id)s)
ON CONFLICT (kind, fingerprint, tenant_id) WHERE resolved_at IS NULL
DO UPDATE SET occurrences = a.occurrences + 1, last_seen_at = now()

-- name: keep_traits
-- Stores traits. The newest value of each name wins.
INSERT INTO control.traits AS t (tenant_id, kind, subject_id, name, value, as_of, event_id)
SELECT DISTINCT ON (tenant_id, kind, subject_id, name) *
FROM unnest(%(tenant_id)s::integer[], %(kind)s::text[], %(subject_id)s::text[], %(name)s::text[], %(value)s::jsonb[],
            %(as_of)s::timestamptz[], %(event_id)s::uuid[])
    AS i(tenant_id, kind, subject_id, name, value, as_of, event_id)
ORDER BY tenant_id, kind, subject_id, name, as_of DESC, event_id DESC
ON CONFLICT (tenant_id, kind, subject_id, name) DO UPDATE
SET value = excluded.value, as_of = excluded.as_of, event_id = excluded.event_id
WHERE (t.as_of, t.event_id) < (excluded.as_of, excluded.event_id)
