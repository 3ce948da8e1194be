-- How often cells of the hour were counted. Every change of an hour's rows leaves a mark, so a higher number says that
-- the rows may have changed.
ALTER TABLE analytics.rollup_hours ADD COLUMN refreshes bigint NOT NULL DEFAULT 0;

-- The exports of each hour for a warehouse. A version never changes; the newest published one is current.
CREATE TABLE control.exports (
    hour           timestamptz NOT NULL CHECK (hour = date_trunc('hour', hour, 'UTC')),
    version        integer NOT NULL CHECK (version > 0),
    -- The directory of the version's files.
    address        text NOT NULL,
    begun_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- What was published. Null while the files are written, and for ever if the process was killed meanwhile.
    published_at   timestamptz,
    file           text,
    events         bigint CHECK (events >= 0),
    bytes          bigint,
    sha256         text CHECK (length(sha256) = 64),
    -- analytics.rollup_hours.refreshes in the snapshot that was exported.
    refreshes      bigint,
    -- When the files were removed: they were replaced, or are past their retention.
    removed_at     timestamptz,
    PRIMARY KEY (hour, version),
    CHECK ((published_at IS NULL) = (sha256 IS NULL))
);
