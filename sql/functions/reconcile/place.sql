-- The place of an event when rows are added up: its tenant and some bits of its identity's hash, in one number.
CREATE OR REPLACE FUNCTION reconcile.place(tenant_id integer, event_id uuid, bits integer) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN tenant_id::bigint << bits | (uuid_hash_extended(event_id, 0) & ((1 << bits) - 1));
