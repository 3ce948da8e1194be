-- name: add
-- Adds a tenant.
INSERT INTO control.tenants (name, plan, events_per_s) VALUES (%(name)s, %(plan)s, %(events_per_s)s)
ON CONFLICT (name) DO NOTHING
RETURNING tenant_id

-- name: find
-- The ids of the named tenants.
SELECT name, tenant_id FROM control.tenants WHERE name = ANY(%s)

-- name: names
-- The names of all tenants.
SELECT name FROM control.tenants ORDER BY name

-- name: list
-- All tenants, with the number of their valid write keys.
SELECT t.tenant_id, t.name, t.plan, t.events_per_s, t.created_at,
       count(k.key_id) FILTER (WHERE k.revoked_at IS NULL OR k.revoked_at > now()) AS working_keys
FROM control.tenants AS t LEFT JOIN control.write_keys AS k USING (tenant_id)
GROUP BY t.tenant_id ORDER BY t.name

-- name: add_key
-- Adds a write key.
INSERT INTO control.write_keys (tenant_id, key_hash, label) VALUES (%s, %s, %s) RETURNING key_id

-- name: revoke_others
-- Revokes the tenant's other write keys after a grace time.
UPDATE control.write_keys SET revoked_at = least(revoked_at, now() + %(grace)s)
WHERE tenant_id = %(tenant_id)s AND key_id <> %(key_id)s AND (revoked_at IS NULL OR revoked_at > now())

-- name: revoke
-- Revokes one write key.
UPDATE control.write_keys SET revoked_at = now()
WHERE key_id = %s AND (revoked_at IS NULL OR revoked_at > now())
RETURNING tenant_id

-- name: keys
-- The write keys, without the secrets.
SELECT k.key_id, t.name AS tenant, k.label, k.created_at, k.revoked_at
FROM control.write_keys AS k JOIN control.tenants AS t USING (tenant_id)
WHERE %(tenant)s::text IS NULL OR t.name = %(tenant)s
ORDER BY k.key_id
