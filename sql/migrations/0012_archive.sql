-- Beyond the retention: an hour's batches as one Parquet file, written and verified before the hour is dropped.
CREATE TABLE control.archives (
    hour        timestamptz PRIMARY KEY CHECK (hour = date_trunc('hour', hour, 'UTC')),
    -- Of the file, as fsspec reads it.
    address     text NOT NULL,
    events      bigint NOT NULL CHECK (events >= 0),
    bytes       bigint NOT NULL,
    -- Of the file's bytes.
    sha256      text NOT NULL CHECK (length(sha256) = 64),
    -- queue.hours.seals when it was made: an hour that an import opened since is not archived any more.
    seals       integer NOT NULL,
    archived_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- When the file was last read back and found to hold what it should.
    verified_at timestamptz NOT NULL,
    restored_at timestamptz
);

CREATE FUNCTION queue.is_archived(an_hour timestamptz) RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT EXISTS (SELECT FROM control.archives AS a JOIN queue.hours AS h USING (hour)
                   WHERE a.hour = an_hour AND a.seals = h.seals)
$$;

-- queue.drop_hour where archives are kept: not before the hour is in one.
CREATE FUNCTION queue.drop_archived_hour(an_hour timestamptz, retention interval) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF NOT queue.is_archived(an_hour) THEN
        RAISE EXCEPTION 'hour % is not archived', an_hour USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    PERFORM queue.drop_hour(an_hour, retention);
END $$;

-- Takes an archived hour back for a replay: its partition again, sealed now, so that its retention starts anew. Its
-- account is what it was: nothing is received, and nothing waits. False: it was never dropped.
CREATE FUNCTION queue.restore_hour(an_hour timestamptz) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    sealed integer;
BEGIN
    PERFORM pg_advisory_xact_lock_shared(queue.hour_lock(an_hour));
    SELECT seals INTO sealed FROM queue.hours WHERE hour = an_hour AND dropped_at IS NOT NULL;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    PERFORM queue.open_hour(an_hour);
    UPDATE queue.hours SET sealed_at = clock_timestamp(), seals = sealed WHERE hour = an_hour;
    UPDATE control.archives SET restored_at = clock_timestamp() WHERE hour = an_hour;
    RETURN true;
END $$;
