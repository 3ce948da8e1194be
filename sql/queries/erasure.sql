-- name: begin
-- Begins an erasure or continues an interrupted one. In both cases everything that was received until now is erased.
INSERT INTO control.erasures AS e (tenant_id, subject_hash, reason, actor)
VALUES (%(tenant_id)s, control.id_hash(%(tenant_id)s, %(user_id)s), %(reason)s, %(actor)s)
ON CONFLICT (tenant_id, subject_hash) WHERE finished_at IS NULL
DO UPDATE SET reason = excluded.reason, actor = excluded.actor, erased_at = clock_timestamp()
RETURNING erasure_id, erased_at

-- name: bury_ids
-- Writes a tombstone for each id of the person.
INSERT INTO control.tombstones AS t (tenant_id, kind, id_hash, erased_at, erasure_id)
SELECT %(tenant_id)s, i.kind, control.id_hash(%(tenant_id)s, i.id), e.erased_at, e.erasure_id
FROM control.erasures AS e,
     (SELECT 'user' AS kind, unnest(%(users)s::text[]) AS id
      UNION ALL SELECT 'anonymous', unnest(%(anonymous)s::text[])) AS i
WHERE e.erasure_id = %(erasure_id)s
ON CONFLICT (tenant_id, kind, id_hash) DO UPDATE SET erased_at = excluded.erased_at, erasure_id = excluded.erasure_id

-- name: older_transactions
-- Older transactions of this platform. They may have read erased events and may still write them.
SELECT application_name, xact_start FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND xact_start < %(before)s
  AND application_name LIKE 'pipeline-platform%%'
ORDER BY xact_start

-- name: now
-- The database's clock.
SELECT clock_timestamp()

-- name: make_scan
-- Creates the temporary table of the events that were found in payloads.
CREATE TEMPORARY TABLE IF NOT EXISTS erasure_scan (
    source            text NOT NULL,
    -- The id of the batch, the dead letter or the quarantined event.
    id                bigint NOT NULL,
    batch_received_at timestamptz,
    event_id          uuid,
    user_id           text,
    anonymous_id      text,
    previous_id       text
)

-- name: empty_scan
-- Empties the temporary table of found events.
TRUNCATE pg_temp.erasure_scan

-- name: fill_scan
-- Fills the temporary table of found events.
COPY pg_temp.erasure_scan (source, id, batch_received_at, event_id, user_id, anonymous_id, previous_id) FROM STDIN

-- name: batches_of_tenant
-- The batches with events of the tenant.
SELECT batch_id, received_at FROM queue.batches
WHERE %(tenant_id)s = ANY(tenant_ids) AND (%(before)s::timestamptz IS NULL OR received_at < %(before)s)
ORDER BY received_at, batch_id

-- name: batches
-- The given batches.
SELECT b.*
FROM unnest(%(batch_ids)s::bigint[], %(received_ats)s::timestamptz[]) AS wanted(batch_id, received_at)
CROSS JOIN LATERAL (
    SELECT * FROM queue.encoded_batches AS own
    WHERE own.batch_id = wanted.batch_id AND own.received_at = wanted.received_at OFFSET 0
) AS b

-- name: dead_letters_of_tenant
-- The tenant's dead letters that still have a payload.
SELECT dead_letter_id, payload FROM queue.dead_letters
WHERE tenant_id = %(tenant_id)s AND payload <> '' AND (%(before)s::timestamptz IS NULL OR received_at < %(before)s)

-- name: quarantine_of_tenant
-- The tenant's quarantined events that still have a payload.
SELECT quarantine_id, payload FROM queue.quarantine
WHERE tenant_id = %(tenant_id)s AND payload <> '' AND (%(before)s::timestamptz IS NULL OR received_at < %(before)s)

-- name: links
-- The ids that occur together with the given ids. Traits also prove that a user exists.
SELECT DISTINCT control.known_id(user_id), control.known_id(anonymous_id), control.known_id(previous_id)
FROM (SELECT user_id, anonymous_id, previous_id FROM pg_temp.erasure_scan
      UNION ALL
      SELECT user_id, anonymous_id, previous_id FROM account.delivered WHERE tenant_id = %(tenant_id)s
      UNION ALL
      SELECT user_id, anonymous_id, previous_id FROM legacy.events WHERE tenant_id = %(tenant_id)s
      UNION ALL
      SELECT subject_id, NULL, NULL FROM control.traits
      WHERE tenant_id = %(tenant_id)s AND kind = 'user' AND subject_id = ANY(%(ids)s)) AS known
WHERE user_id = ANY(%(ids)s) OR anonymous_id = ANY(%(ids)s) OR previous_id = ANY(%(ids)s)

-- name: buried_ids
-- Anonymous ids that an interrupted run of this erasure buried. The events that linked them may be gone already.
SELECT DISTINCT known.anonymous_id
FROM (SELECT anonymous_id FROM pg_temp.erasure_scan
      UNION
      SELECT previous_id FROM pg_temp.erasure_scan
      UNION
      SELECT anonymous_id FROM account.delivered WHERE tenant_id = %(tenant_id)s
      UNION
      SELECT previous_id FROM account.delivered WHERE tenant_id = %(tenant_id)s
      UNION
      SELECT anonymous_id FROM legacy.events WHERE tenant_id = %(tenant_id)s
      UNION
      SELECT previous_id FROM legacy.events WHERE tenant_id = %(tenant_id)s) AS known
JOIN control.tombstones AS t ON t.tenant_id = %(tenant_id)s AND t.kind = 'anonymous'
                            AND t.id_hash = control.id_hash(%(tenant_id)s, known.anonymous_id)
JOIN control.erasures AS e USING (erasure_id)
WHERE e.subject_hash = control.id_hash(%(tenant_id)s, %(user_id)s) AND e.finished_at IS NULL
  -- Evaluated once: without an interrupted run nothing is hashed.
  AND EXISTS (SELECT FROM control.erasures AS own
              WHERE own.tenant_id = %(tenant_id)s AND own.finished_at IS NULL
                AND own.subject_hash = control.id_hash(%(tenant_id)s, %(user_id)s))

-- name: planned
-- The number of found events by place, by the id that makes them this person's, and by whether their user id is the
-- named one. Events of linked users (is_theirs false) are not erased. They are counted by their user id.
SELECT source, is_theirs,
       CASE WHEN is_theirs AND previous_id = ANY(%(users)s::text[] || %(anonymous)s::text[])
                 AND (user_id = ANY(%(users)s::text[])) IS NOT TRUE
            THEN previous_id ELSE coalesce(control.known_id(user_id), anonymous_id) END AS by_id,
       coalesce(user_id = %(user_id)s, false), count(*)
FROM (SELECT *, control.is_theirs(user_id, anonymous_id, previous_id, %(users)s, %(anonymous)s) AS is_theirs
      FROM (SELECT source, user_id, anonymous_id, previous_id FROM pg_temp.erasure_scan
            UNION ALL
            SELECT CASE WHEN is_shadow THEN 'shadow' ELSE 'analytics' END, user_id, anonymous_id, previous_id
            FROM account.delivered
            WHERE tenant_id = %(tenant_id)s AND (%(before)s::timestamptz IS NULL OR received_at < %(before)s)
            UNION ALL
            SELECT 'legacy', user_id, anonymous_id, previous_id FROM legacy.events WHERE tenant_id = %(tenant_id)s) AS every
     ) AS known
WHERE is_theirs OR user_id = ANY(%(linked)s::text[])
GROUP BY 1, 2, 3, 4

-- name: marked_batches
-- The batches in which events of the person were found.
SELECT DISTINCT id, batch_received_at FROM pg_temp.erasure_scan
WHERE source = 'queue' AND control.is_theirs(user_id, anonymous_id, previous_id, %(users)s, %(anonymous)s)
ORDER BY batch_received_at, id

-- name: marked_ids
-- The dead letters or quarantined events that are of the person.
SELECT id FROM pg_temp.erasure_scan
WHERE source = %(source)s AND control.is_theirs(user_id, anonymous_id, previous_id, %(users)s, %(anonymous)s)

-- name: their_rows
-- The delivered rows of the person, each with its batch if that is still kept.
SELECT e.batch_id, e.event_id, e.received_at, b.received_at
FROM account.delivered AS e
LEFT JOIN LATERAL (
    SELECT received_at FROM queue.batches AS own
    WHERE own.batch_id = e.batch_id AND own.received_at >= date_trunc('hour', e.received_at, 'UTC')
      AND own.received_at < date_trunc('hour', e.received_at, 'UTC') + interval '1 hour' OFFSET 0
) AS b ON true
WHERE e.tenant_id = %(tenant_id)s AND e.received_at < %(before)s
  AND control.is_theirs(e.user_id, e.anonymous_id, e.previous_id, %(users)s, %(anonymous)s)

-- name: enter
-- Takes the locks of an erasure. The settings force index look-ups: a few rows are searched in very large tables, and
-- the planner could otherwise choose scans.
SELECT pg_advisory_xact_lock(control.erasure_lock()), pg_advisory_xact_lock_shared(analytics.key_lock()),
       set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true),
       set_config('enable_seqscan', 'off', true)

-- name: hold_hour
-- Prevents a drop of the hour.
SELECT pg_advisory_xact_lock_shared(queue.hour_lock(date_trunc('hour', %(received_at)s::timestamptz, 'UTC')))

-- name: hold_work
-- Locks the work of a batch. It waits for workers that hold it.
SELECT work_id, first_event, end_event FROM queue.work
WHERE batch_id = %(batch_id)s AND received_at = %(received_at)s
ORDER BY work_id FOR UPDATE

-- name: renew_work
-- Deletes the work and creates it again, so that a claim with a snapshot older than the emptied batch finds nothing to
-- lock.
WITH gone AS (
    DELETE FROM queue.work WHERE batch_id = %(batch_id)s AND received_at = %(received_at)s RETURNING *
)
INSERT INTO queue.work (lane, work_id, batch_id, received_at, first_event, end_event, deaths)
OVERRIDING SYSTEM VALUE
SELECT lane, work_id, batch_id, received_at, first_event, end_event, deaths FROM gone

-- name: empty_batch
-- Replaces the payload of a batch.
UPDATE queue.batches SET lengths = %(lengths)s, envelope_of = %(envelope_of)s, envelopes = %(envelopes)s,
                         codec = %(codec)s, payload = %(payload)s
WHERE batch_id = %(batch_id)s AND received_at = %(received_at)s

-- name: already_erased
-- Which of these events were erased before.
SELECT e.batch_id, e.event_index, e.event_id
FROM unnest(%(batch_ids)s::bigint[], %(indexes)s::integer[]) AS i(batch_id, event_index)
JOIN control.erased_events AS e
  ON e.tenant_id = %(tenant_id)s AND e.batch_id = i.batch_id AND e.event_index = i.event_index

-- name: hold_letters
-- Locks the dead letters of these events.
SELECT d.batch_id, d.event_index, d.state, d.failed_in, d.fingerprint
FROM unnest(%(batch_ids)s::bigint[], %(indexes)s::integer[]) AS i(batch_id, event_index)
JOIN queue.dead_letters AS d USING (batch_id, event_index)
WHERE d.tenant_id = %(tenant_id)s
ORDER BY d.dead_letter_id FOR UPDATE OF d

-- name: empty_letters
-- Empties the dead letters of these events and discards the unresolved ones.
UPDATE queue.dead_letters AS d SET
    payload = '', envelope = NULL, message_id = NULL, error = 'erased', next_attempt_at = NULL,
    reason = 'erased: erasure ' || %(erasure_id)s::bigint,
    state = CASE WHEN state IN ('waiting', 'exhausted') THEN 'discarded' ELSE state END,
    resolved_at = coalesce(resolved_at, clock_timestamp())
FROM unnest(%(batch_ids)s::bigint[], %(indexes)s::integer[]) AS i(batch_id, event_index)
WHERE d.tenant_id = %(tenant_id)s AND d.batch_id = i.batch_id AND d.event_index = i.event_index

-- name: letters_places
-- The places of dead letters that still have a payload.
SELECT batch_id, event_index, event_id, received_at, batch_received_at, lane::text
FROM queue.dead_letters
WHERE tenant_id = %(tenant_id)s AND dead_letter_id = ANY(%(ids)s) AND payload <> ''

-- name: blank_alerts
-- Removes the event from alerts. An alert names an event, and an alert of an older version quotes its error, which may
-- quote the event.
UPDATE control.alerts SET sample_id = NULL,
                          message = 'dead letters of fingerprint ' || fingerprint || ' were exhausted; see: '
                                    'pipeline-platform dead-letters list --fingerprint ' || fingerprint
WHERE tenant_id = %(tenant_id)s AND fingerprint = ANY(%(fingerprints)s)

-- name: delete_rows
-- Deletes the person's rows from the events of one schema. If the identity also occurs in the batch with other people's ids, only
-- rows of this person are deleted.
WITH gone AS (
    DELETE FROM {schema}.events AS e
    USING unnest(%(batch_ids)s::bigint[], %(event_ids)s::uuid[], %(received_ats)s::timestamptz[], %(sole)s::boolean[])
          AS i(batch_id, event_id, received_at, is_sole)
    WHERE e.tenant_id = %(tenant_id)s AND e.received_at = i.received_at AND e.event_id = i.event_id
      AND e.batch_id = i.batch_id
      AND (i.is_sole OR control.is_theirs(e.user_id, e.anonymous_id, e.previous_id, %(users)s, %(anonymous)s))
    RETURNING e.batch_id, e.event_id, e.received_at
), marked AS (
    INSERT INTO analytics.rollup_marks (tenant_id, received_hour)
    SELECT DISTINCT %(tenant_id)s::integer, date_trunc('hour', received_at, 'UTC') FROM gone
)
SELECT batch_id, event_id FROM gone

-- name: note_erased
-- Records the erased events by their places in the queue.
INSERT INTO control.erased_events (tenant_id, batch_id, event_index, event_id, batch_received_at, was, erasure_id)
SELECT %(tenant_id)s, batch_id, event_index, event_id, batch_received_at, was, %(erasure_id)s
FROM unnest(%(batch_ids)s::bigint[], %(indexes)s::integer[], %(event_ids)s::uuid[], %(batch_received_ats)s::timestamptz[],
            %(was)s::text[]) AS i(batch_id, event_index, event_id, batch_received_at, was)
ON CONFLICT DO NOTHING

-- name: count_erased
-- Counts the erased events as discarded.
INSERT INTO account.deltas (tenant_id, hour, lane, delivered, dead_lettered, discarded)
SELECT %(tenant_id)s, date_trunc('hour', batch_received_at, 'UTC'), lane::queue.lane,
       -count(*) FILTER (WHERE was = 'delivered'), -count(*) FILTER (WHERE was = 'dead_lettered'), count(*)
FROM unnest(%(batch_received_ats)s::timestamptz[], %(lanes)s::text[], %(was)s::text[]) AS i(batch_received_at, lane, was)
WHERE was IN ('delivered', 'dead_lettered')
GROUP BY 2, 3

-- name: keep_identities
-- Adds identity keys for erased events that were never delivered, so that a resend counts as a duplicate.
INSERT INTO analytics.keys (generation, tenant_id, event_id, received_at)
SELECT DISTINCT ON (i.event_id) (SELECT max(generation) FROM analytics.key_generations), %(tenant_id)s, i.event_id,
       i.received_at
FROM unnest(%(event_ids)s::uuid[], %(received_ats)s::timestamptz[]) AS i(event_id, received_at)
WHERE NOT EXISTS (SELECT FROM analytics.keys AS k WHERE k.tenant_id = %(tenant_id)s AND k.event_id = i.event_id OFFSET 0)
-- The workers' order, to avoid deadlocks.
ORDER BY i.event_id
ON CONFLICT DO NOTHING

-- name: lanes_of_hour
-- The lanes in which the account has delivered events of the hour. A row's lane is taken from here if its batch is
-- gone.
SELECT lane::text, delivered FROM account.funnel
WHERE tenant_id = %(tenant_id)s AND hour = %(hour)s AND delivered > 0
ORDER BY delivered DESC

-- name: empty_quarantined
-- Empties quarantined events.
UPDATE queue.quarantine SET payload = '', message_id = NULL, message = 'erased'
WHERE tenant_id = %(tenant_id)s AND quarantine_id = ANY(%(ids)s)

-- name: delete_legacy
-- Deletes the person's rows from the legacy pipeline's table.
DELETE FROM legacy.events AS e
WHERE tenant_id = %(tenant_id)s AND control.is_theirs(user_id, anonymous_id, previous_id, %(users)s, %(anonymous)s)
  AND (arrived_at < %(before)s
       OR EXISTS (SELECT FROM control.erased_events AS x WHERE x.tenant_id = e.tenant_id AND x.event_id = e.event_id))

-- name: delete_traits
-- Deletes the person's traits, except those that the person has sent since.
DELETE FROM control.traits AS t
WHERE tenant_id = %(tenant_id)s AND kind = 'user' AND subject_id = ANY(%(users)s)
  AND NOT EXISTS (SELECT FROM account.delivered AS e
                  WHERE e.tenant_id = t.tenant_id AND e.event_id = t.event_id AND e.received_at >= %(before)s)

-- name: group_traits
-- The number of group traits that came from erased events.
SELECT count(*) FROM control.traits AS t
JOIN control.erased_events AS e ON e.tenant_id = t.tenant_id AND e.event_id = t.event_id
WHERE t.tenant_id = %(tenant_id)s AND t.kind = 'group' AND e.erasure_id = %(erasure_id)s

-- name: strip_traits
-- Removes the old user traits from rows that were delivered while the traits could still be looked up.
WITH stripped AS (
    UPDATE analytics.events SET user_traits = NULL
    WHERE tenant_id = %(tenant_id)s AND received_at >= %(before)s AND user_id = ANY(%(users)s) AND user_traits IS NOT NULL
    RETURNING received_at
)
INSERT INTO analytics.rollup_marks (tenant_id, received_hour)
SELECT DISTINCT %(tenant_id)s::integer, date_trunc('hour', received_at, 'UTC') FROM stripped

-- name: delete_scratch
-- Deletes the person's rows from the diffs of replays.
DELETE FROM replay.scratch AS s
WHERE tenant_id = %(tenant_id)s
  AND (EXISTS (SELECT FROM control.erased_events AS x WHERE x.tenant_id = s.tenant_id AND x.event_id = s.event_id)
       OR (received_at < %(before)s
           AND control.is_theirs(s.row ->> 'user_id', s.row ->> 'anonymous_id', s.row ->> 'previous_id', %(users)s,
                                 %(anonymous)s)))

-- name: delete_before_images
-- Deletes the person's before-images.
DELETE FROM replay.before_images AS s
WHERE tenant_id = %(tenant_id)s
  AND (EXISTS (SELECT FROM control.erased_events AS x WHERE x.tenant_id = s.tenant_id AND x.event_id = s.event_id)
       OR (received_at < %(before)s
           AND control.is_theirs(s.row ->> 'user_id', s.row ->> 'anonymous_id', s.row ->> 'previous_id', %(users)s,
                                 %(anonymous)s)))

-- name: own_table
-- The user's own table behind legacy.output, if any.
SELECT output_table FROM control.legacy_target

-- name: is_mirrored
-- Whether events are mirrored in the epoch in force.
SELECT is_mirrored FROM control.epochs ORDER BY epoch DESC LIMIT 1

-- name: totals
-- The number of erased events by what they were.
SELECT was, count(*) FROM control.erased_events WHERE erasure_id = %(erasure_id)s GROUP BY was

-- name: finish
-- Records that an erasure is finished.
UPDATE control.erasures SET finished_at = clock_timestamp(), counts = %(counts)s::jsonb WHERE erasure_id = %(erasure_id)s

-- name: subject_hash
-- The hash of a user id.
SELECT encode(control.id_hash(%(tenant_id)s, %(user_id)s), 'hex')

-- name: stale_exports
-- The number of exported hours whose rows may have changed since.
SELECT count(*)
FROM (SELECT DISTINCT ON (hour) hour, refreshes FROM control.exports
      WHERE published_at IS NOT NULL AND removed_at IS NULL ORDER BY hour, version DESC) AS x
LEFT JOIN analytics.rollup_hours AS r ON r.received_hour = x.hour
WHERE x.refreshes IS DISTINCT FROM coalesce(r.refreshes, 0)
   OR EXISTS (SELECT FROM analytics.unrolled AS u WHERE u.received_hour = x.hour)
