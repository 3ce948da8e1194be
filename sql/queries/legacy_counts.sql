-- name: stages
-- What each stage of the legacy pipeline counted.
SELECT stage, sum(arrived)::bigint AS arrived, sum(proceeded)::bigint AS proceeded, sum(failed)::bigint AS failed
FROM legacy.stage_counts
WHERE (%(tenant_id)s::integer IS NULL OR tenant_id = %(tenant_id)s)
  AND (%(since)s::timestamptz IS NULL OR hour >= %(since)s)
GROUP BY stage
ORDER BY array_position(ARRAY['mirror', 'gateway', 'queue', 'lookup', 'write'], stage), stage

-- name: tenants
-- The mirrored and delivered events of each tenant in the legacy pipeline.
SELECT coalesce(t.name, c.tenant_id::text) AS tenant,
       coalesce(sum(arrived) FILTER (WHERE stage = 'mirror'), 0)::bigint AS mirrored,
       sum(proceeded) FILTER (WHERE stage = 'write')::bigint AS delivered
FROM legacy.stage_counts AS c LEFT JOIN control.tenants AS t USING (tenant_id)
WHERE (%(tenant_id)s::integer IS NULL OR tenant_id = %(tenant_id)s)
  AND (%(since)s::timestamptz IS NULL OR hour >= %(since)s)
GROUP BY 1
ORDER BY mirrored DESC, tenant

-- name: causes
-- The losses of the legacy pipeline, by stage and cause.
SELECT stage, cause, count(*) AS events
FROM legacy.losses
WHERE (%(tenant_id)s::integer IS NULL OR tenant_id = %(tenant_id)s)
  AND (%(since)s::timestamptz IS NULL OR lost_at >= %(since)s)
GROUP BY stage, cause
ORDER BY events DESC, stage, cause
