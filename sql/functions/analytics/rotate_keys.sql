-- Opens a new generation of identity keys if the open one is older than span. Returns true if it did. Drops the oldest
-- generation, at most one per call, if nothing needs it (why_generation_kept) and the identity keys of unresolved dead
-- letters were carried out of it.
CREATE OR REPLACE FUNCTION analytics.rotate_keys(span interval, retention interval) RETURNS boolean LANGUAGE plpgsql
SET lock_timeout = '250ms' AS $$
DECLARE
    newest record;
    oldest integer;
    is_due boolean;
    is_open boolean := false;
BEGIN
    SELECT * INTO newest FROM analytics.key_generations ORDER BY generation DESC LIMIT 1;
    SELECT min(generation) INTO oldest FROM analytics.key_generations WHERE closed_at IS NOT NULL;
    is_due := newest.opened_at + span <= clock_timestamp();
    IF NOT is_due AND (oldest IS NULL OR analytics.why_generation_kept(oldest, retention) IS NOT NULL) THEN
        RETURN false;
    END IF;
    -- Waits for all writers of identity keys, so that the statements below see everything that they accepted or
    -- processed.
    PERFORM pg_advisory_xact_lock(analytics.key_lock());
    IF is_due AND NOT EXISTS (SELECT FROM analytics.key_generations WHERE generation > newest.generation) THEN
        EXECUTE format('CREATE TABLE analytics.%I PARTITION OF analytics.keys FOR VALUES IN (%s)',
                       'keys_' || newest.generation + 1, newest.generation + 1);
        UPDATE analytics.key_generations SET closed_at = clock_timestamp() WHERE generation = newest.generation;
        INSERT INTO analytics.key_generations (generation) VALUES (newest.generation + 1);
        is_open := true;
    END IF;
    -- Checked again: another keeper may have dropped the generation, and newer events may need it.
    SELECT min(generation) INTO oldest FROM analytics.key_generations WHERE closed_at IS NOT NULL;
    IF oldest IS NOT NULL AND analytics.why_generation_kept(oldest, retention) IS NULL
       AND analytics.carry_keys(oldest, 5000) THEN
        DELETE FROM analytics.key_generations WHERE generation = oldest;
        EXECUTE format('DROP TABLE analytics.%I', 'keys_' || oldest);
    END IF;
    RETURN is_open;
END $$;
