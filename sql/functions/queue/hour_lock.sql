-- Key of the advisory lock that whoever writes into an hour holds shared, and whoever seals it exclusively.
CREATE OR REPLACE FUNCTION queue.hour_lock(an_hour timestamptz) RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN (extract(epoch FROM an_hour) / 3600)::bigint + (1::bigint << 40);
