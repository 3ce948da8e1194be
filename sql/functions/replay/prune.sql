-- Prunes replays whose last step is older than `retention`: they can no longer be undone. Then deletes up to
-- rows_max of the diffs and as many of the before-images of pruned replays. Returns how many rows were deleted.
CREATE OR REPLACE FUNCTION replay.prune(retention interval, rows_max integer) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    diffs bigint;
    images bigint;
BEGIN
    UPDATE replay.replays SET pruned_at = clock_timestamp() WHERE replay_id IN (
        SELECT replay_id FROM replay.replays
        WHERE pruned_at IS NULL AND state IN ('planned', 'diffed', 'committed', 'undone', 'cancelled')
          AND greatest(created_at, diffed_at, committed_at, undone_at) + retention < clock_timestamp()
        FOR UPDATE SKIP LOCKED);
    DELETE FROM replay.scratch WHERE ctid = ANY(ARRAY(
        SELECT s.ctid FROM replay.replays AS r JOIN replay.scratch AS s USING (replay_id)
        WHERE r.pruned_at IS NOT NULL LIMIT rows_max));
    GET DIAGNOSTICS diffs = ROW_COUNT;
    DELETE FROM replay.before_images WHERE ctid = ANY(ARRAY(
        SELECT i.ctid FROM replay.replays AS r JOIN replay.before_images AS i USING (replay_id)
        WHERE r.pruned_at IS NOT NULL LIMIT rows_max));
    GET DIAGNOSTICS images = ROW_COUNT;
    RETURN diffs + images;
END $$;
