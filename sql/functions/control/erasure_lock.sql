-- The key of the lock that an erasure takes exclusively while it changes a batch and what became of it. Whoever writes
-- rows from batches without holding their work (replay, recovery) holds it shared, from a statement before it reads.
CREATE OR REPLACE FUNCTION control.erasure_lock() RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN 1::bigint << 42;
