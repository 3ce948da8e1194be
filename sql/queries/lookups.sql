-- name: tenants
SELECT tenant_id, json_build_object('name', name, 'plan', plan)::text FROM control.tenants WHERE tenant_id = ANY(%s)

-- name: traits
SELECT tenant_id, subject_id, jsonb_object_agg(name, value)::text
FROM control.traits
JOIN unnest(%(tenant_ids)s::integer[], %(subject_ids)s::text[]) AS wanted(tenant_id, subject_id)
    USING (tenant_id, subject_id)
WHERE kind = %(kind)s
GROUP BY tenant_id, subject_id
