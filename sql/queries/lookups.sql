-- name: known
-- What is known of each: tenants have an empty subject_id.
SELECT w.kind, w.tenant_id, w.subject_id,
       coalesce(CASE WHEN w.kind = 'tenant' THEN (
           SELECT json_build_object('name', t.name, 'plan', t.plan)::text FROM control.tenants AS t
           WHERE t.tenant_id = w.tenant_id
       ) ELSE (
           SELECT jsonb_object_agg(t.name, t.value)::text FROM control.traits AS t
           WHERE t.tenant_id = w.tenant_id AND t.kind = w.kind AND t.subject_id = w.subject_id
       ) END, '')
FROM unnest(%(kind)s::text[], %(tenant_id)s::integer[], %(subject_id)s::text[]) AS w(kind, tenant_id, subject_id)
