-- The key of the lock that an erasure takes exclusively while it changes a batch and its outcomes. Processes that write
-- rows from batches without holding their work (replay, recovery) hold it shared. They take it in a statement before
-- they read.
CREATE OR REPLACE FUNCTION control.erasure_lock() RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN 1::bigint << 42;
