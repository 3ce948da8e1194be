-- How much longer than by the clock something of that time must be kept.
CREATE OR REPLACE FUNCTION queue.unwatched_since(at timestamptz) RETURNS interval LANGUAGE sql STABLE AS $$
    SELECT greatest(coalesce(sum(moved), '0'), '0') FROM queue.clock_steps WHERE before_at > at
$$;
