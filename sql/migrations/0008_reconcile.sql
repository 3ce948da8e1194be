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

-- The content of an event in 64 bits: of those columns that are compared. Equal values have equal bits; two that differ
-- have them by chance once in 10^19. JSON goes in as text: PostgreSQL's own hash of jsonb is the same when two values
-- 32 places apart are exchanged. Numbers that are equal and written differently (1 and 1.0) differ here: whoever finds
-- different bits compares the values.
CREATE FUNCTION reconcile.content(
    compared text[], type text, name text, user_id text, anonymous_id text, group_id text, previous_id text,
    message_id text, occurred_at timestamptz, properties jsonb, traits jsonb, context jsonb
) RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN hash_record_extended(
    ROW(CASE WHEN 'type' = ANY(compared) THEN type END, CASE WHEN 'name' = ANY(compared) THEN name END,
        CASE WHEN 'user_id' = ANY(compared) THEN user_id END,
        CASE WHEN 'anonymous_id' = ANY(compared) THEN anonymous_id END,
        CASE WHEN 'group_id' = ANY(compared) THEN group_id END,
        CASE WHEN 'previous_id' = ANY(compared) THEN previous_id END,
        CASE WHEN 'message_id' = ANY(compared) THEN message_id END,
        CASE WHEN 'occurred_at' = ANY(compared) THEN occurred_at END,
        CASE WHEN 'properties' = ANY(compared) THEN properties::text END,
        CASE WHEN 'traits' = ANY(compared) THEN traits::text END,
        CASE WHEN 'context' = ANY(compared) THEN context::text END), 0);

-- The values that differ between two contents, by name; of JSON objects key by key. An absent value is NULL.
CREATE FUNCTION reconcile.differing_fields(compared text[], ours jsonb, theirs jsonb)
RETURNS TABLE (field text, our_value jsonb, their_value jsonb) LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC
    SELECT c.name || coalesce('.' || k.key, ''), k.ours, k.theirs
    FROM unnest(compared) AS c(name)
    CROSS JOIN LATERAL (SELECT nullif(ours -> c.name, 'null') AS ours, nullif(theirs -> c.name, 'null') AS theirs) AS v
    CROSS JOIN LATERAL (
        SELECT NULL AS key, v.ours, v.theirs
        WHERE jsonb_typeof(coalesce(v.ours, '{}')) <> 'object' OR jsonb_typeof(coalesce(v.theirs, '{}')) <> 'object'
              OR coalesce(v.ours, '{}') = coalesce(v.theirs, '{}')
        UNION ALL
        SELECT coalesce(o.key, t.key), o.value, t.value
        FROM jsonb_each(CASE jsonb_typeof(v.ours) WHEN 'object' THEN v.ours ELSE '{}' END) AS o
        FULL JOIN jsonb_each(CASE jsonb_typeof(v.theirs) WHEN 'object' THEN v.theirs ELSE '{}' END) AS t USING (key)
        WHERE jsonb_typeof(coalesce(v.ours, '{}')) = 'object' AND jsonb_typeof(coalesce(v.theirs, '{}')) = 'object'
    ) AS k
    WHERE k.ours IS DISTINCT FROM k.theirs;
END;

-- What may be said of a value without saying it.
CREATE FUNCTION reconcile.shape(value jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN jsonb_build_object('type', coalesce(jsonb_typeof(value), 'absent'),
                          'length', coalesce(length(value #>> '{}'), 0));
