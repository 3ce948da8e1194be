-- Opens an hour for an import, even a sealed one. Returns true if it was sealed. The caller holds the hour's lock
-- shared for its session, so that the hour is not sealed before the import has ended. A dropped hour stays closed: its
-- account is final, and it cannot be recounted without its batches.
CREATE OR REPLACE FUNCTION queue.reopen_hour(an_hour timestamptz) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared(queue.hour_lock(an_hour));
    IF EXISTS (SELECT FROM queue.hours WHERE hour = an_hour AND dropped_at IS NOT NULL) THEN
        RAISE EXCEPTION 'hour % was dropped', an_hour USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    PERFORM queue.open_hour(an_hour);
    UPDATE queue.hours SET sealed_at = NULL WHERE hour = an_hour AND sealed_at IS NOT NULL;
    RETURN FOUND;
END $$;
