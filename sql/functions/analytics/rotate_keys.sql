-- Opens a new generation when the open one is older than span; true: it did. Drops the oldest one, at most one a call, when
-- nothing needs it (why_generation_kept) and the keys of unresolved dead letters were carried out of it.
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
    -- Waits for everybody who writes keys: whatever they accepted or processed is seen by the statements below.
    PERFORM pg_advisory_xact_lock(analytics.key_lock());
    IF is_due AND NOT EXISTS (SELECT FROM analytics.key_generations WHERE generation > newest.generation) THEN
        EXECUTE format('CREATE TABLE analytics.%I PARTITION OF analytics.keys FOR VALUES IN (%s)',
                       'keys_' || newest.generation + 1, newest.generation + 1);
        UPDATE analytics.key_generations SET closed_at = clock_timestamp() WHERE generation = newest.generation;
        INSERT INTO analytics.key_generations (generation) VALUES (newest.generation + 1);
        is_open := true;
    END IF;
    -- Asked again: another keeper may have dropped it, and what came meanwhile may need it.
    SELECT min(generation) INTO oldest FROM analytics.key_generations WHERE closed_at IS NOT NULL;
    IF oldest IS NOT NULL AND analytics.why_generation_kept(oldest, retention) IS NULL
       AND analytics.carry_keys(oldest, 5000) THEN
        DELETE FROM analytics.key_generations WHERE generation = oldest;
        EXECUTE format('DROP TABLE analytics.%I', 'keys_' || oldest);
    END IF;
    RETURN is_open;
END $$;
