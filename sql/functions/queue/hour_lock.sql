-- The key of the advisory lock of an hour. Writers into the hour hold it shared. A seal holds it exclusively.
CREATE OR REPLACE FUNCTION queue.hour_lock(an_hour timestamptz) RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN (extract(epoch FROM an_hour) / 3600)::bigint + (1::bigint << 40);
