-- name: list
-- Dead letters that match a filter.
SELECT d.dead_letter_id, t.name AS tenant, d.event_id::text, d.message_id, d.failed_in, d.error_class, d.error,
       d.fingerprint, d.state, d.attempts, d.next_attempt_at, d.created_at, d.received_at, d.batch_id, d.lane::text
FROM queue.dead_letters AS d JOIN control.tenants AS t USING (tenant_id)
WHERE (%(tenants)s::text[] IS NULL OR t.name = ANY(%(tenants)s))
  AND (%(fingerprint)s::text IS NULL OR d.fingerprint = %(fingerprint)s)
  AND (%(ids)s::bigint[] IS NULL OR d.dead_letter_id = ANY(%(ids)s))
  AND d.state = ANY(%(states)s)
  AND (%(since)s::timestamptz IS NULL OR d.created_at >= %(since)s)
  AND (%(until)s::timestamptz IS NULL OR d.created_at < %(until)s)
  AND (%(failed_in)s::text IS NULL OR d.failed_in = %(failed_in)s)
  AND (%(error_class)s::text IS NULL OR d.error_class = %(error_class)s)
ORDER BY d.created_at, d.dead_letter_id
LIMIT %(limit)s

-- name: show
-- One dead letter with its payload.
SELECT d.dead_letter_id, t.name AS tenant, d.event_id::text, d.message_id, d.failed_in, d.error_class, d.error,
       d.fingerprint, d.state, d.attempts, d.next_attempt_at, d.created_at, d.received_at, d.batch_id, d.lane::text,
       d.event_index, d.resolved_at, d.reason, d.payload, d.envelope
FROM queue.dead_letters AS d JOIN control.tenants AS t USING (tenant_id)
WHERE d.dead_letter_id = %(dead_letter_id)s

-- name: count
-- Unresolved dead letters that match a filter, grouped by tenant, fingerprint, failed part and error class.
SELECT t.name AS tenant, d.fingerprint, d.failed_in, d.error_class, min(d.error) AS sample_error, count(*) AS events
FROM queue.dead_letters AS d JOIN control.tenants AS t USING (tenant_id)
WHERE (%(tenants)s::text[] IS NULL OR t.name = ANY(%(tenants)s))
  AND (%(fingerprint)s::text IS NULL OR d.fingerprint = %(fingerprint)s)
  AND (%(ids)s::bigint[] IS NULL OR d.dead_letter_id = ANY(%(ids)s))
  AND d.state IN ('waiting', 'exhausted')
  AND (%(since)s::timestamptz IS NULL OR d.created_at >= %(since)s)
  AND (%(until)s::timestamptz IS NULL OR d.created_at < %(until)s)
  AND (%(failed_in)s::text IS NULL OR d.failed_in = %(failed_in)s)
  AND (%(error_class)s::text IS NULL OR d.error_class = %(error_class)s)
GROUP BY 1, 2, 3, 4
ORDER BY events DESC

-- name: redrive
-- Makes unresolved dead letters that match a filter due at once.
WITH chosen AS (
    SELECT d.tenant_id, d.dead_letter_id
    FROM queue.dead_letters AS d JOIN control.tenants AS t USING (tenant_id)
    WHERE (%(tenants)s::text[] IS NULL OR t.name = ANY(%(tenants)s))
      AND (%(fingerprint)s::text IS NULL OR d.fingerprint = %(fingerprint)s)
      AND (%(ids)s::bigint[] IS NULL OR d.dead_letter_id = ANY(%(ids)s))
      AND d.state IN ('waiting', 'exhausted')
      AND (%(since)s::timestamptz IS NULL OR d.created_at >= %(since)s)
      AND (%(until)s::timestamptz IS NULL OR d.created_at < %(until)s)
      AND (%(failed_in)s::text IS NULL OR d.failed_in = %(failed_in)s)
      AND (%(error_class)s::text IS NULL OR d.error_class = %(error_class)s)
    -- The same lock order as a replay's commit, to avoid deadlocks.
    ORDER BY d.tenant_id, d.dead_letter_id
    FOR UPDATE OF d
)
UPDATE queue.dead_letters AS d
-- Attempts start again, because the operator says that the cause is gone.
SET state = 'waiting', next_attempt_at = clock_timestamp(), attempts = 1, deaths = 0, reason = %(reason)s
FROM chosen
WHERE d.tenant_id = chosen.tenant_id AND d.dead_letter_id = chosen.dead_letter_id

-- name: resolve_alerts
-- Resolves the alerts of fingerprints without an exhausted dead letter.
UPDATE control.alerts AS a SET resolved_at = now()
WHERE a.kind = 'dead_letter_exhausted' AND a.resolved_at IS NULL
  AND NOT EXISTS (SELECT FROM queue.dead_letters AS d WHERE d.tenant_id = a.tenant_id AND d.fingerprint = a.fingerprint AND d.state = 'exhausted')

-- name: discard
-- Discards unresolved dead letters that match a filter.
WITH chosen AS (
    SELECT d.tenant_id, d.dead_letter_id, d.batch_received_at, d.lane
    FROM queue.dead_letters AS d JOIN control.tenants AS t USING (tenant_id)
    WHERE (%(tenants)s::text[] IS NULL OR t.name = ANY(%(tenants)s))
      AND (%(fingerprint)s::text IS NULL OR d.fingerprint = %(fingerprint)s)
      AND (%(ids)s::bigint[] IS NULL OR d.dead_letter_id = ANY(%(ids)s))
      AND d.state IN ('waiting', 'exhausted')
      AND (%(since)s::timestamptz IS NULL OR d.created_at >= %(since)s)
      AND (%(until)s::timestamptz IS NULL OR d.created_at < %(until)s)
      AND (%(failed_in)s::text IS NULL OR d.failed_in = %(failed_in)s)
      AND (%(error_class)s::text IS NULL OR d.error_class = %(error_class)s)
    -- The same lock order as a replay's commit, to avoid deadlocks.
    ORDER BY d.tenant_id, d.dead_letter_id
    FOR UPDATE OF d
), counted AS (
    INSERT INTO account.deltas (tenant_id, hour, lane, dead_lettered, discarded)
    SELECT tenant_id, date_trunc('hour', batch_received_at, 'UTC'), lane, -count(*), count(*)
    FROM chosen GROUP BY 1, 2, 3
)
UPDATE queue.dead_letters AS d
SET state = 'discarded', next_attempt_at = NULL, resolved_at = now(), reason = %(reason)s
FROM chosen
WHERE d.tenant_id = chosen.tenant_id AND d.dead_letter_id = chosen.dead_letter_id
