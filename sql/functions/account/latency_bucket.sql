-- Times have whole microseconds, and width_bucket's bounds are exclusive: half of one makes them inclusive.
CREATE OR REPLACE FUNCTION account.latency_bucket(seconds float8) RETURNS smallint LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN width_bucket(seconds - 0.0000005, account.latency_bounds())::smallint;
