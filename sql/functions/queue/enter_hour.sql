-- The database's clock, limited to an hour that this transaction may write into. It is never a sealed hour, even if the
-- server's clock was stepped back.
CREATE OR REPLACE FUNCTION queue.enter_hour() RETURNS timestamptz LANGUAGE plpgsql AS $$
DECLARE
    now_at timestamptz;
    this_hour timestamptz;
    sealed_until timestamptz;
    state record;
BEGIN
    LOOP
        SELECT max(hour) + interval '1 hour' INTO sealed_until FROM queue.hours WHERE sealed_at IS NOT NULL;
        now_at := greatest(clock_timestamp(), sealed_until);
        this_hour := date_trunc('hour', now_at, 'UTC');
        PERFORM pg_advisory_xact_lock_shared(queue.hour_lock(this_hour));
        SELECT sealed_at, dropped_at INTO state FROM queue.hours WHERE hour = this_hour;
        IF NOT FOUND THEN
            PERFORM queue.open_hour(this_hour);
            RETURN now_at;
        END IF;
        IF state.sealed_at IS NULL THEN
            RETURN now_at;
        END IF;
    END LOOP;
END $$;
