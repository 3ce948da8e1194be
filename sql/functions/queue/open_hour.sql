-- Creates the partitions of an hour and opens it.
CREATE OR REPLACE FUNCTION queue.open_hour(an_hour timestamptz) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    part text := 'queue.batches_' || to_char(an_hour AT TIME ZONE 'UTC', 'YYYYMMDD_HH24');
BEGIN
    IF EXISTS (SELECT FROM queue.hours WHERE hour = an_hour AND dropped_at IS NULL) THEN
        RETURN;
    END IF;
    PERFORM pg_advisory_xact_lock(hashtext('queue.open_hour'));
    IF to_regclass(part) IS NULL THEN
        PERFORM control.add_partition('queue.batches', part, an_hour, an_hour + interval '1 hour');
    END IF;
    PERFORM analytics.open_day((an_hour AT TIME ZONE 'UTC')::date);
    INSERT INTO queue.hours (hour) VALUES (an_hour)
    ON CONFLICT (hour) DO UPDATE SET dropped_at = NULL, sealed_at = NULL;
END $$;
