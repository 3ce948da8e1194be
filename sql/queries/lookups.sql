-- name: cache_key
-- The key that signs cached look-ups.
SELECT key FROM control.cache_key

-- name: known
-- What is known of each subject. Tenants have an empty subject_id. For users and groups these are the newest traits, up
-- to a number and a size (see known_apart). `left_out` counts the other traits among the newest.
SELECT w.kind, w.tenant_id, w.subject_id, coalesce(CASE WHEN w.kind = 'tenant' THEN (
           SELECT json_build_object('name', t.name, 'plan', t.plan)::text FROM control.tenants AS t
           WHERE t.tenant_id = w.tenant_id
       ) ELSE traits.known END, ''), coalesce(traits.left_out, 0)
FROM unnest(%(kind)s::text[], %(tenant_id)s::integer[], %(subject_id)s::text[]) AS w(kind, tenant_id, subject_id)
LEFT JOIN LATERAL (
    SELECT (jsonb_object_agg(sized.name, sized.value) FILTER (WHERE sized.fits AND sized.all_bytes <= %(bytes_max)s))::text
               AS known,
           count(*) FILTER (WHERE NOT sized.fits OR sized.all_bytes > %(bytes_max)s) AS left_out
    FROM (
        SELECT newest.name, newest.value, newest.bytes <= %(bytes_max)s AS fits,
               sum(newest.bytes) FILTER (WHERE newest.bytes <= %(bytes_max)s)
                   OVER (ORDER BY newest.as_of DESC, newest.event_id DESC, newest.name COLLATE "C") AS all_bytes
        FROM (
            SELECT t.name, t.value, t.as_of, t.event_id, octet_length(t.name) + octet_length(t.value::text) AS bytes
            FROM control.traits AS t
            WHERE t.tenant_id = w.tenant_id AND t.kind = w.kind AND t.subject_id = w.subject_id
            ORDER BY t.as_of DESC, t.event_id DESC, t.name COLLATE "C"
            LIMIT %(traits_max)s
        ) AS newest
    ) AS sized
) AS traits ON w.kind <> 'tenant'

-- name: known_apart
-- The newest traits of each user and group, one per row, and the traits of a claim's events in PostgreSQL's text form
-- (place > 0). A value that is too large to be copied is NULL.
SELECT 0, w.kind, w.tenant_id, w.subject_id, t.name, t.as_of, t.event_id, octet_length(t.name) + octet_length(t.value),
       CASE WHEN octet_length(t.name) + octet_length(t.value) <= %(bytes_max)s THEN t.value END
FROM unnest(%(kind)s::text[], %(tenant_id)s::integer[], %(subject_id)s::text[]) AS w(kind, tenant_id, subject_id)
CROSS JOIN LATERAL (
    SELECT own.name, own.as_of, own.event_id, own.value::text AS value
    FROM control.traits AS own
    WHERE own.tenant_id = w.tenant_id AND own.kind = w.kind AND own.subject_id = w.subject_id
    ORDER BY own.as_of DESC, own.event_id DESC, own.name COLLATE "C"
    LIMIT %(traits_max)s
) AS t
UNION ALL
SELECT i.place, '', 0, '', i.name, NULL, NULL, octet_length(i.name) + octet_length(i.value::text),
       CASE WHEN octet_length(i.name) + octet_length(i.value::text) <= %(bytes_max)s THEN i.value::text END
FROM unnest(%(place)s::integer[], %(name)s::text[], %(value)s::jsonb[]) AS i(place, name, value)
