-- The key of the advisory lock on identity keys. Writers of identity keys hold it shared. A rotation holds it
-- exclusively.
CREATE OR REPLACE FUNCTION analytics.key_lock() RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN 1::bigint << 41;
