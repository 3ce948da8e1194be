-- name: erased
-- Which of these events, by their places, are of people who were erased after the events were received. It is an index
-- look-up, whatever the number of tombstones. As in control.is_theirs, an anonymous id counts only if no user was
-- logged in.
SELECT DISTINCT known.place - 1
FROM (
    SELECT i.place, i.tenant_id, i.received_at, id.kind, control.id_hash(i.tenant_id, id.value) AS id_hash
    FROM unnest(%(tenant_ids)s::integer[], %(user_ids)s::text[], %(anonymous_ids)s::text[], %(previous_ids)s::text[],
                %(received_ats)s::timestamptz[])
        WITH ORDINALITY AS i(tenant_id, user_id, anonymous_id, previous_id, received_at, place)
    CROSS JOIN LATERAL (VALUES ('user', i.user_id), ('user', i.previous_id), ('anonymous', i.previous_id),
                               ('anonymous', CASE WHEN i.user_id IS NULL THEN i.anonymous_id END)) AS id(kind, value)
    WHERE id.value IS NOT NULL
) AS known
JOIN control.tombstones AS t USING (tenant_id, kind, id_hash)
WHERE known.received_at < t.erased_at

-- name: any_erased
-- Whether any of these tenants has a tombstone.
SELECT EXISTS (SELECT FROM control.tombstones WHERE tenant_id = ANY(%s))
