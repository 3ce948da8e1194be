-- Drops an hour's batches, or fails with the reason. It never waits long for a lock, for any caller: all later
-- transactions, including the gateway's, wait behind it.
CREATE OR REPLACE FUNCTION queue.drop_hour(an_hour timestamptz, retention interval) RETURNS void LANGUAGE plpgsql
SET lock_timeout = '250ms' AS $$
DECLARE
    why text;
    newest bigint;
    unwatched interval;
BEGIN
    IF NOT pg_try_advisory_xact_lock(queue.hour_lock(an_hour)) THEN
        RAISE EXCEPTION 'hour % is being written', an_hour USING ERRCODE = 'object_in_use';
    END IF;
    why := queue.why_kept(an_hour, retention);
    IF why IS NOT NULL THEN
        RAISE EXCEPTION 'hour % %', an_hour, why USING ERRCODE = 'object_in_use';
    END IF;
    SELECT queue.unwatched_since(sealed_at) INTO unwatched FROM queue.hours
    WHERE hour = an_hour AND sealed_at + retention + queue.unwatched_since(sealed_at) > clock_timestamp();
    IF FOUND THEN
        RAISE EXCEPTION 'hour % was not sealed % ago: the clock moved by % while no keeper looked', an_hour, retention,
            unwatched USING ERRCODE = 'object_in_use';
    END IF;
    SELECT max(batch_id) INTO newest FROM queue.batches
    WHERE received_at >= an_hour AND received_at < an_hour + interval '1 hour';
    EXECUTE format('DROP TABLE IF EXISTS queue.%I', 'batches_' || to_char(an_hour AT TIME ZONE 'UTC', 'YYYYMMDD_HH24'));
    UPDATE queue.hours SET dropped_at = clock_timestamp(), last_batch = newest WHERE hour = an_hour;
END $$;
