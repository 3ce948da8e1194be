-- Seals an hour. Returns true if no open or later transaction can still write into it.
CREATE OR REPLACE FUNCTION queue.seal_hour(an_hour timestamptz) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    IF an_hour + interval '1 hour' > clock_timestamp()
       OR NOT pg_try_advisory_xact_lock(queue.hour_lock(an_hour)) THEN
        RETURN false;
    END IF;
    UPDATE queue.hours SET sealed_at = clock_timestamp(), seals = seals + 1
    WHERE hour = an_hour AND sealed_at IS NULL AND dropped_at IS NULL;
    RETURN EXISTS (SELECT FROM queue.hours WHERE hour = an_hour AND sealed_at IS NOT NULL);
END $$;
