-- SHA-256; the tenant is part of it, so that nobody learns from two hashes that two tenants know the same person.
CREATE OR REPLACE FUNCTION control.id_hash(a_tenant integer, an_id text) RETURNS bytea
LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN sha256(convert_to(a_tenant || ':' || an_id, 'UTF8'));
