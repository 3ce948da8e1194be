-- Records a keeper's look at the clock. elapsed_s: the most time that passed since the same keeper's last look. NULL:
-- the keeper does not know. Differences up to a minute count as time that passed.
CREATE OR REPLACE FUNCTION queue.note_clock(elapsed_s double precision) RETURNS void LANGUAGE plpgsql AS $$
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
        -- The keeper itself was held up for a long time, so the clock was not watched.
        INSERT INTO queue.clock_steps (before_at, moved, is_proved) VALUES (now_at, gap, false);
    ELSIF gap < -slack THEN
        INSERT INTO queue.clock_steps (before_at, moved, is_proved) VALUES (last_at, gap, true);
    END IF;
    UPDATE queue.clock SET seen_at = now_at;
    DELETE FROM queue.clock_steps WHERE greatest(before_at, noted_at) + interval '30 days' < now_at;
END $$;
