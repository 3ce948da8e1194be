-- The inclusive upper bounds of the histogram in seconds. Bucket n lies below bound n, the last bucket lies above all
-- of them. The bounds must never change: sums in the old bounds would be read as sums in the new ones.
CREATE OR REPLACE FUNCTION account.latency_bounds() RETURNS float8[] LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN ARRAY[0.002, 0.004, 0.006, 0.008, 0.01, 0.012, 0.016, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60, 300, 3600]::float8[];
