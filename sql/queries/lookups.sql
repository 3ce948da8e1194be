-- name: tenants
SELECT tenant_id, json_build_object('name', name, 'plan', plan)::text FROM control.tenants WHERE tenant_id = ANY(%s)

-- name: traits
SELECT wanted.tenant_id, wanted.subject_id, known.traits
FROM unnest(%(tenant_ids)s::integer[], %(subject_ids)s::text[]) AS wanted(tenant_id, subject_id)
CROSS JOIN LATERAL (
    SELECT jsonb_object_agg(t.name, t.value)::text AS traits
    FROM control.traits AS t
    WHERE t.tenant_id = wanted.tenant_id AND t.kind = %(kind)s AND t.subject_id = wanted.subject_id
) AS known
WHERE known.traits IS NOT NULL
