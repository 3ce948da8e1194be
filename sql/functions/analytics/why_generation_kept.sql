-- Why a generation of identity keys cannot be dropped yet. NULL: it can be dropped. An identity that occurs in an hour
-- has an identity key in the generation that was open when the occurrence was processed, or in a later one.
CREATE OR REPLACE FUNCTION analytics.why_generation_kept(a_generation integer, retention interval) RETURNS text
LANGUAGE sql STABLE AS $$
    SELECT coalesce(
        CASE WHEN g.closed_at IS NULL THEN 'is open'
             WHEN g.closed_at + retention <= clock_timestamp() THEN NULL
             ELSE format('was not closed %s ago', retention) END,
        (SELECT format('is needed by %s kept hours, the oldest is %s', count(*), min(hour)) FROM queue.hours
         WHERE dropped_at IS NULL AND coalesce(opened_at, '-infinity') < g.closed_at HAVING count(*) > 0),
        -- Accepted while the generation had to be kept, and not yet compared with it.
        (SELECT format('is needed by %s pieces of work, the oldest is of %s', count(*), min(received_at)) FROM queue.work
         WHERE received_at < g.closed_at + retention HAVING count(*) > 0))
    FROM analytics.key_generations AS g WHERE g.generation = a_generation
$$;
