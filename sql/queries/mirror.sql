-- name: only_one
-- Tries to take the lock under which only one mirror runs.
SELECT pg_try_advisory_lock(hashtext('pipeline_platform.migration.mirror'))

-- name: target
-- The configuration of the legacy pipeline.
SELECT forward_url, headers, retries, timeout_s, requests_at_once, give_up_s, configured_at FROM control.legacy_target

-- name: look
-- Whether events are mirrored in the epoch in force, the highest id drawn, and the transactions that write the table.
SELECT (SELECT is_mirrored FROM control.epochs ORDER BY epoch DESC LIMIT 1),
       (SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM queue.mirror_mirror_id_seq),
       ARRAY(SELECT queue.writers_of('queue.mirror'))

-- name: low_water
-- The low-water mark: no row below it can still appear. See LowWater of the queue.
SELECT least((SELECT min(mirror_id) FROM queue.mirror WHERE mirror_id >= %(low_water)s AND sending_at IS NULL),
             %(horizon)s)

-- name: tenants
-- The names of tenants and their keys for the legacy pipeline.
SELECT t.tenant_id, t.name, k.write_key
FROM control.tenants AS t LEFT JOIN control.legacy_keys AS k USING (tenant_id)
WHERE t.tenant_id = ANY(%s)

-- name: take
-- Records that batches are being sent, and returns them. The record is committed before anything is sent.
WITH waiting AS (
    SELECT mirror_id, events FROM queue.mirror
    WHERE mirror_id >= %(low_water)s AND sending_at IS NULL
    ORDER BY mirror_id
    LIMIT %(batches)s
    FOR UPDATE SKIP LOCKED
), chosen AS (
    SELECT mirror_id FROM (SELECT mirror_id, sum(events) OVER (ORDER BY mirror_id) - events AS before FROM waiting) AS w
    WHERE before < %(events)s
), taken AS (
    UPDATE queue.mirror AS m SET sending_at = clock_timestamp()
    FROM chosen WHERE m.mirror_id = chosen.mirror_id
    RETURNING m.mirror_id, m.batch_id, m.received_at
)
SELECT t.mirror_id, t.received_at < clock_timestamp() - make_interval(secs => %(give_up_s)s) AS is_late,
       b.*
FROM taken AS t
CROSS JOIN LATERAL (
    SELECT * FROM queue.encoded_batches AS own
    WHERE own.batch_id = t.batch_id AND own.received_at = t.received_at OFFSET 0
) AS b
ORDER BY t.mirror_id

-- name: left_behind
-- Events that a mirror may have sent before it died.
SELECT mirror_id, e.tenant_id, e.event_id, e.batch_received_at
FROM queue.mirror AS m
JOIN queue.events AS e ON e.batch_id = m.batch_id AND e.batch_received_at = m.received_at
WHERE m.sending_at IS NOT NULL

-- name: record
-- Records the fate of mirrored batches in one statement: counts by tenant, hour and stage, the lost events, and the
-- deletion of the rows. Missing rows were recorded before, by an earlier try of this call or by another mirror. They are
-- not counted again.
WITH gone AS (DELETE FROM queue.mirror WHERE mirror_id = ANY(%(mirror_ids)s) RETURNING mirror_id),
lost AS (
    INSERT INTO legacy.losses (tenant_id, event_id, stage, cause)
    SELECT * FROM unnest(%(lost_tenant_ids)s::integer[], %(lost_event_ids)s::uuid[], %(lost_stages)s::text[],
                         %(lost_causes)s::text[])
    WHERE EXISTS (SELECT FROM gone)
)
INSERT INTO legacy.stage_counts AS c (tenant_id, hour, stage, arrived, proceeded, failed)
SELECT tenant_id, hour, stage, sum(proceeded + failed), sum(proceeded), sum(failed)
FROM unnest(%(tenant_ids)s::integer[], %(hours)s::timestamptz[], %(stages)s::text[], %(proceeded)s::bigint[],
            %(failed)s::bigint[]) AS i(tenant_id, hour, stage, proceeded, failed)
WHERE EXISTS (SELECT FROM gone)
GROUP BY tenant_id, hour, stage
-- The same order in all transactions that count here, to avoid deadlocks.
ORDER BY tenant_id, hour, stage
ON CONFLICT (tenant_id, hour, stage) DO UPDATE
SET arrived = c.arrived + excluded.arrived, proceeded = c.proceeded + excluded.proceeded,
    failed = c.failed + excluded.failed

-- name: configure
-- Changes the configuration of the legacy pipeline.
UPDATE control.legacy_target SET
    forward_url = %(forward_url)s, headers = %(headers)s, retries = %(retries)s, timeout_s = %(timeout_s)s,
    requests_at_once = %(requests_at_once)s, give_up_s = %(give_up_s)s, settle_s = %(settle_s)s,
    compared = %(compared)s, output_table = %(output_table)s, configured_at = clock_timestamp()

-- name: show
-- The configuration of the legacy pipeline and the state of the mirror.
SELECT t.forward_url, t.headers, t.retries, t.timeout_s, t.requests_at_once, t.give_up_s, t.settle_s, t.compared,
       t.output_table, t.configured_at,
       EXISTS (SELECT FROM pg_stat_activity
               WHERE datname = current_database() AND application_name = 'pipeline-platform mirror wake') AS runs,
       (SELECT coalesce(sum(events), 0)::bigint FROM queue.mirror) AS waiting,
       (SELECT coalesce(sum(proceeded), 0)::bigint FROM legacy.stage_counts WHERE stage = 'mirror') AS forwarded,
       (SELECT coalesce(sum(failed), 0)::bigint FROM legacy.stage_counts WHERE stage = 'mirror') AS lost
FROM control.legacy_target AS t

-- name: keep_key
-- Stores a tenant's key for the legacy pipeline. The change of configured_at makes the mirror read it.
WITH kept AS (
    INSERT INTO control.legacy_keys (tenant_id, write_key) VALUES (%s, %s)
    ON CONFLICT (tenant_id) DO UPDATE SET write_key = excluded.write_key
)
UPDATE control.legacy_target SET configured_at = clock_timestamp()

-- name: columns_of
-- The columns of a table.
SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute
WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped
ORDER BY attnum

-- name: look_at_rows
-- What some rows of the legacy pipeline's output are like. All columns are read, to prove that they can be.
SELECT count(o.*), count(*) FILTER (WHERE tenant_id IS NULL),
       count(*) FILTER (WHERE coalesce(btrim(message_id), '') = ''), count(*) FILTER (WHERE received_at IS NULL),
       count(*) FILTER (WHERE 'string' IN (jsonb_typeof(properties), jsonb_typeof(traits), jsonb_typeof(context)))
FROM (SELECT * FROM legacy.output LIMIT %(rows)s) AS o

-- name: acknowledge_losses
-- Acknowledges the losses of the mirror, of all tenants or of one. Returns their number by cause.
WITH taken AS (
    UPDATE legacy.losses SET acknowledged_at = clock_timestamp()
    WHERE stage = 'mirror' AND acknowledged_at IS NULL
      AND (%(tenant_id)s::integer IS NULL OR tenant_id = %(tenant_id)s)
    RETURNING cause
)
SELECT cause, count(*) FROM taken GROUP BY cause ORDER BY count(*) DESC, cause
