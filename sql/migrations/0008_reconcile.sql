-- What comparing the old pipeline's output with the platform's found, by window of received_at. A window that is
-- reconciled again replaces what it found before.
CREATE SCHEMA reconcile;

CREATE TABLE reconcile.windows (
    window_start  timestamptz NOT NULL,
    window_end    timestamptz NOT NULL CHECK (window_end > window_start),
    reconciled_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- Both sides had delivered all that they will: the numbers are final.
    is_settled    boolean NOT NULL,
    seconds       double precision NOT NULL,
    -- What was compared and what could not be: events in flight, waiting for the mirror, dead letters.
    coverage      jsonb NOT NULL,
    PRIMARY KEY (window_start, window_end)
);

-- Numbers of identities, but for duplicates: further rows.
CREATE TABLE reconcile.results (
    window_start timestamptz NOT NULL,
    window_end   timestamptz NOT NULL,
    tenant_id    integer NOT NULL,
    accepted     bigint NOT NULL DEFAULT 0,
    platform     bigint NOT NULL DEFAULT 0,
    legacy       bigint NOT NULL DEFAULT 0,
    matched      bigint NOT NULL DEFAULT 0,
    mismatched   bigint NOT NULL DEFAULT 0,
    dropped      bigint NOT NULL DEFAULT 0,
    extra        bigint NOT NULL DEFAULT 0,
    missing      bigint NOT NULL DEFAULT 0,
    duplicates   bigint NOT NULL DEFAULT 0,
    recovered    bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant_id, window_start, window_end)
);
CREATE INDEX ON reconcile.results (window_start, window_end);

-- Each event that differs, by name. One that is dropped and not recovered has two rows: it is dropped, and missing.
CREATE TABLE reconcile.differences (
    window_start timestamptz NOT NULL,
    window_end   timestamptz NOT NULL,
    tenant_id    integer NOT NULL,
    event_id     uuid NOT NULL,
    kind         text NOT NULL CHECK (kind IN ('dropped', 'extra', 'missing', 'mismatched')),
    -- Where a dropped or missing event was lost: the stage that reported it, or 'unreported'. Of an extra one: what
    -- became of it on the platform.
    stage        text,
    -- The names of the fields that differ, down to properties.<key>.
    fields       jsonb,
    -- By field, type and length of both values; never a value.
    samples      jsonb,
    PRIMARY KEY (tenant_id, window_start, window_end, kind, event_id)
);
CREATE INDEX ON reconcile.differences (window_start, window_end);
