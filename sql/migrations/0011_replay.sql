-- Replay: what was retained is processed again, first beside production (diff), then into it (commit), and back (undo).
CREATE SCHEMA replay;

CREATE TYPE replay.state AS ENUM
    ('planned', 'diffing', 'diffed', 'committing', 'committed', 'undoing', 'undone', 'cancelled');

CREATE TABLE replay.replays (
    replay_id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    window_start   timestamptz NOT NULL,
    window_end     timestamptz NOT NULL CHECK (window_end > window_start),
    -- NULL: all.
    tenant_ids     integer[],
    types          text[],
    -- Add what production lacks, and leave alone what it has.
    only_missing   boolean NOT NULL DEFAULT false,
    state          replay.state NOT NULL DEFAULT 'planned',
    is_paused      boolean NOT NULL DEFAULT false,
    -- Of a commit: rows that changed in production since the diff are replaced as well.
    takes_newer    boolean NOT NULL DEFAULT false,
    planned_events bigint NOT NULL,
    -- Versions of the transform: those that production's rows may have come from, and the diff's.
    transform_from text[] NOT NULL DEFAULT '{}',
    transform_to   text,
    actor          text NOT NULL,
    reason         text NOT NULL CHECK (reason <> ''),
    created_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- Of the step under way, for its rate.
    step_began_at  timestamptz,
    diffed_at      timestamptz,
    committed_at   timestamptz,
    undone_at      timestamptz,
    -- Since then there are no before-images to undo with.
    pruned_at      timestamptz
);

-- The ledger: neighbouring batches of one hour, some thousand events; what is done of it is done for good. One chunk an
-- hour is a sweep: it looks for rows in production that no accepted event stands for.
CREATE TABLE replay.chunks (
    replay_id    bigint NOT NULL REFERENCES replay.replays,
    chunk        integer NOT NULL,
    hour         timestamptz NOT NULL,
    is_sweep     boolean NOT NULL,
    first_batch  bigint NOT NULL,
    last_batch   bigint NOT NULL,
    events       bigint NOT NULL,
    -- In the step under way.
    is_done      boolean NOT NULL DEFAULT false,
    -- Counted before the work: a chunk that keeps killing its workers pauses its replay.
    attempts     smallint NOT NULL DEFAULT 0,
    -- The backend that works on it; free again once that is gone.
    taken_by     integer,
    taken_since  timestamptz,
    diffed_at    timestamptz,
    committed_at timestamptz,
    undone_at    timestamptz,
    PRIMARY KEY (replay_id, chunk)
);
CREATE INDEX chunks_to_do ON replay.chunks (replay_id, chunk) WHERE NOT is_done;
CREATE INDEX ON replay.chunks (hour);

-- What the diff of a chunk found, by tenant.
CREATE TABLE replay.counts (
    replay_id bigint NOT NULL REFERENCES replay.replays,
    chunk     integer NOT NULL,
    tenant_id integer NOT NULL,
    hour      timestamptz NOT NULL,
    events    bigint NOT NULL DEFAULT 0,
    added     bigint NOT NULL DEFAULT 0,
    changed   bigint NOT NULL DEFAULT 0,
    removed   bigint NOT NULL DEFAULT 0,
    unchanged bigint NOT NULL DEFAULT 0,
    -- Further occurrences of an identity that production has.
    duplicate bigint NOT NULL DEFAULT 0,
    -- Discarded by an operator or erased: never brought back.
    discarded bigint NOT NULL DEFAULT 0,
    -- No row can be made of it.
    failed    bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (replay_id, chunk, tenant_id)
);
CREATE INDEX ON replay.counts (hour);

CREATE TYPE replay.action AS ENUM ('added', 'changed', 'removed');

ALTER TABLE analytics.events ADD COLUMN replay_id bigint;
ALTER TABLE shadow.events ADD COLUMN replay_id bigint;

-- What the diff would write, only where it differs, as the row's JSON.
CREATE TABLE replay.scratch (
    replay_id    bigint NOT NULL REFERENCES replay.replays,
    chunk        integer NOT NULL,
    tenant_id    integer NOT NULL,
    event_id     uuid NOT NULL,
    received_at  timestamptz NOT NULL,
    action       replay.action NOT NULL,
    -- Whether its row is, or belongs, in shadow.events.
    is_shadow    boolean NOT NULL,
    fields       text[],
    -- MD5 of the row in production when it was compared.
    before_hash  uuid,
    row          jsonb NOT NULL,
    committed_as text CHECK (committed_as IN ('added', 'changed', 'removed', 'skipped')),
    PRIMARY KEY (replay_id, tenant_id, event_id)
);
CREATE INDEX ON replay.scratch (replay_id, chunk);

-- What a commit replaced: the row's JSON as it was, NULL where there was none.
CREATE TABLE replay.before_images (
    replay_id      bigint NOT NULL REFERENCES replay.replays,
    chunk          integer NOT NULL,
    tenant_id      integer NOT NULL,
    event_id       uuid NOT NULL,
    received_at    timestamptz NOT NULL,
    action         replay.action NOT NULL,
    is_shadow      boolean NOT NULL,
    had_key        boolean NOT NULL,
    -- The dead letter that the commit delivered.
    dead_letter_id bigint,
    row            jsonb,
    is_restored    boolean NOT NULL DEFAULT false,
    PRIMARY KEY (replay_id, tenant_id, event_id)
);
CREATE INDEX ON replay.before_images (replay_id, chunk);

-- Names of the keys that differ between two JSON objects, `prefix.key`; `prefix` where one of them is none.
CREATE FUNCTION replay.changed_keys(prefix text, one jsonb, other jsonb) RETURNS text[] LANGUAGE sql IMMUTABLE
RETURN CASE
    WHEN one IS NULL AND other IS NULL OR one::text = other::text THEN ARRAY[]::text[]
    WHEN coalesce(jsonb_typeof(one), 'object') <> 'object' OR coalesce(jsonb_typeof(other), 'object') <> 'object'
        THEN ARRAY[prefix]
    ELSE coalesce((SELECT array_agg(prefix || '.' || key ORDER BY key)
                   FROM jsonb_each(coalesce(one, '{}')) AS a(key, value)
                   FULL JOIN jsonb_each(coalesce(other, '{}')) AS b(key, value) USING (key)
                   WHERE a.value::text IS DISTINCT FROM b.value::text), ARRAY[prefix])
END;

-- What a lane may use, changed while it runs; without a row the settings hold.
CREATE TABLE control.lane_limits (
    lane  queue.lane PRIMARY KEY,
    share double precision NOT NULL CHECK (share > 0 AND share <= 1),
    cap   double precision NOT NULL CHECK (cap > 0 AND cap <= 1 AND cap >= share)
);

-- Since when rows are made by which version of the transform.
CREATE TABLE control.transforms (
    since   timestamptz PRIMARY KEY DEFAULT clock_timestamp(),
    version text NOT NULL
);

-- As before, and not while a diff reads the hour's batches. One that was left paused keeps it for a day.
CREATE OR REPLACE FUNCTION queue.why_kept(an_hour timestamptz, retention interval) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT coalesce(
        (SELECT format('was not sealed %s ago', retention) FROM queue.hours
         WHERE hour = an_hour AND (sealed_at IS NULL OR sealed_at + retention > clock_timestamp())),
        (SELECT format('still has %s pieces of work', count(*)) FROM queue.work
         WHERE received_at >= an_hour AND received_at < an_hour + interval '1 hour' HAVING count(*) > 0),
        (SELECT format('still has %s batches for the mirror', count(*)) FROM queue.mirror
         WHERE received_at >= an_hour AND received_at < an_hour + interval '1 hour' HAVING count(*) > 0),
        (SELECT format('is needed by the diff of replay %s', r.replay_id)
         FROM replay.replays AS r JOIN replay.chunks AS c USING (replay_id)
         WHERE c.hour = an_hour AND r.state = 'diffing' AND r.step_began_at > clock_timestamp() - interval '1 day'
         LIMIT 1))
$$;

-- Forgets what replays kept of longer than `retention` ago: they can be undone no more.
CREATE FUNCTION replay.prune(retention interval) RETURNS bigint LANGUAGE plpgsql AS $$
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
