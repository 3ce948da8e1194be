-- Recovery: what the old pipeline dropped while it was production, moved from shadow.events into production.
CREATE SCHEMA recovery;

CREATE TABLE recovery.runs (
    recovery_id  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    window_start timestamptz NOT NULL,
    window_end   timestamptz NOT NULL CHECK (window_end > window_start),
    actor        text NOT NULL DEFAULT current_user,
    reason       text NOT NULL,
    started_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- NULL: it runs, or was killed; the next run over its window goes on where it ended.
    finished_at  timestamptz
);

-- What was moved, by the transaction that moved it.
CREATE TABLE recovery.moves (
    recovery_id bigint NOT NULL REFERENCES recovery.runs,
    tenant_id   integer NOT NULL,
    hour        timestamptz NOT NULL CHECK (hour = date_trunc('hour', hour, 'UTC')),
    events      bigint NOT NULL,
    moved_at    timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX ON recovery.moves (recovery_id);
