-- Retention counts the time that passed, not what a clock shows: what the clock moved between two looks of a keeper beyond
-- what can have passed is noted, and what was there before waits that much longer.
CREATE TABLE queue.clock (
    is_only boolean PRIMARY KEY DEFAULT true CHECK (is_only),
    seen_at timestamptz NOT NULL
);

CREATE TABLE queue.clock_steps (
    step_id   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- What happened before this moment, by the clock, is older by `moved` less than it seems.
    before_at timestamptz NOT NULL,
    moved     interval NOT NULL,
    -- Proved by a keeper that ran all the time; else nobody looked, and the time may have passed.
    is_proved boolean NOT NULL,
    noted_at  timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- A keeper looks at the clock. elapsed_s: at most so much time passed since the same keeper's last look; NULL: it does not
-- know. Differences of a minute are time that passed.
CREATE FUNCTION queue.note_clock(elapsed_s double precision) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    last_at timestamptz;
    now_at timestamptz;
    gap interval;
    slack CONSTANT interval := '1 minute';
    passed interval := make_interval(secs => coalesce(elapsed_s, 0));
BEGIN
    SELECT seen_at INTO last_at FROM queue.clock;
    now_at := clock_timestamp();
    IF last_at + interval '5 seconds' > now_at AND last_at - slack < now_at THEN
        RETURN;
    END IF;
    INSERT INTO queue.clock (seen_at) VALUES (now_at) ON CONFLICT DO NOTHING;
    SELECT seen_at INTO last_at FROM queue.clock FOR UPDATE;
    now_at := clock_timestamp();
    gap := now_at - last_at;
    IF gap > slack + passed THEN
        INSERT INTO queue.clock_steps (before_at, moved, is_proved) VALUES (now_at, gap - passed, elapsed_s IS NOT NULL);
    ELSIF gap > slack THEN
        -- The keeper itself was held up for long: nobody watched.
        INSERT INTO queue.clock_steps (before_at, moved, is_proved) VALUES (now_at, gap, false);
    ELSIF gap < -slack THEN
        INSERT INTO queue.clock_steps (before_at, moved, is_proved) VALUES (last_at, gap, true);
    END IF;
    UPDATE queue.clock SET seen_at = now_at;
    DELETE FROM queue.clock_steps WHERE greatest(before_at, noted_at) + interval '30 days' < now_at;
END $$;

-- How much longer than by the clock something of that time is to be kept.
CREATE FUNCTION queue.unwatched_since(at timestamptz) RETURNS interval LANGUAGE sql STABLE AS $$
    SELECT greatest(coalesce(sum(moved), '0'), '0') FROM queue.clock_steps WHERE before_at > at
$$;

-- Drops an hour's batches, or says why not. It never waits long for a lock, whoever calls: all who come later, the gateway
-- too, wait behind it.
CREATE OR REPLACE FUNCTION queue.drop_hour(an_hour timestamptz, retention interval) RETURNS void LANGUAGE plpgsql
SET lock_timeout = '250ms' AS $$
DECLARE
    why text;
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
    EXECUTE format('DROP TABLE IF EXISTS queue.%I', 'batches_' || to_char(an_hour AT TIME ZONE 'UTC', 'YYYYMMDD_HH24'));
    UPDATE queue.hours SET dropped_at = clock_timestamp() WHERE hour = an_hour;
END $$;

-- The same of the other function that takes strong locks, in whichever form it is.
DO $$
DECLARE
    a_function regprocedure;
BEGIN
    FOR a_function IN SELECT oid FROM pg_proc WHERE pronamespace = 'analytics'::regnamespace AND proname = 'rotate_keys' LOOP
        EXECUTE format('ALTER FUNCTION %s SET lock_timeout = ''250ms''', a_function);
    END LOOP;
END $$;
