-- SHA-256 of a tenant and an id. The tenant is included, so that two hashes do not reveal that two tenants know the
-- same person.
CREATE OR REPLACE FUNCTION control.id_hash(a_tenant integer, an_id text) RETURNS bytea
LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN sha256(convert_to(a_tenant || ':' || an_id, 'UTF8'));
