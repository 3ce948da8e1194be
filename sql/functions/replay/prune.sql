-- Deletes the before-images and diffs of replays whose last step is older than `retention`. These replays can no longer
-- be undone.
CREATE OR REPLACE FUNCTION replay.prune(retention interval) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    old bigint[];
BEGIN
    SELECT array_agg(replay_id) INTO old FROM (
        SELECT replay_id FROM replay.replays
        WHERE pruned_at IS NULL AND state IN ('planned', 'diffed', 'committed', 'undone', 'cancelled')
          AND greatest(created_at, diffed_at, committed_at, undone_at) + retention < clock_timestamp()
        FOR UPDATE SKIP LOCKED) AS r;
    IF old IS NULL THEN
        RETURN 0;
    END IF;
    DELETE FROM replay.scratch WHERE replay_id = ANY(old);
    DELETE FROM replay.before_images WHERE replay_id = ANY(old);
    UPDATE replay.replays SET pruned_at = clock_timestamp() WHERE replay_id = ANY(old);
    RETURN cardinality(old);
END $$;
