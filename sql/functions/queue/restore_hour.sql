-- Restores an archived hour for a replay. Creates its partition again and seals it at the present time, so that its
-- retention starts anew. Its account does not change: nothing is received, and nothing waits. Returns false if the hour
-- was never dropped. The caller inserts the batches and calls recall_hour.
CREATE OR REPLACE FUNCTION queue.restore_hour(an_hour timestamptz) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    sealed integer;
BEGIN
    PERFORM pg_advisory_xact_lock_shared(queue.hour_lock(an_hour));
    SELECT seals INTO sealed FROM queue.hours WHERE hour = an_hour AND dropped_at IS NOT NULL;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    PERFORM queue.open_hour(an_hour);
    UPDATE queue.hours SET sealed_at = clock_timestamp(), opened_at = clock_timestamp(), seals = sealed
    WHERE hour = an_hour;
    UPDATE control.archives SET restored_at = clock_timestamp() WHERE hour = an_hour;
    RETURN true;
END $$;
