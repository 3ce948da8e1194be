-- The bucket of a latency. Times have whole microseconds, and the bounds of width_bucket are exclusive: subtracting
-- half a microsecond makes them inclusive.
CREATE OR REPLACE FUNCTION account.latency_bucket(seconds float8) RETURNS smallint LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN width_bucket(seconds - 0.0000005, account.latency_bounds())::smallint;
