-- Upgrades the last version before the baseline to the baseline: tables and data. The functions follow later.

-- A replay proves that it read everything that it judges. It keeps its hours while it reads them.
ALTER TABLE replay.replays ADD COLUMN paused_because text;

ALTER TABLE replay.chunks
    -- The number of events that the diff found in the chunk's batches, whether the replay wants them or not. NULL: not
    -- yet read.
    ADD COLUMN read_events bigint,
    -- At the commit of added rows: no batch with a lower id was processed later. NULL: unknown.
    ADD COLUMN seen_batches bigint;

-- Not undone: since the commit the event was delivered or sent again, or its person was erased.
ALTER TABLE replay.before_images ADD COLUMN kept_newer boolean NOT NULL DEFAULT false;

CREATE INDEX dead_letters_of_an_event ON queue.dead_letters (tenant_id, event_id);

-- Diffs that earlier versions made without that proof are made again before they are committed.
DELETE FROM replay.scratch WHERE replay_id IN (SELECT replay_id FROM replay.replays WHERE state IN ('diffing', 'diffed'));

DELETE FROM replay.counts WHERE replay_id IN (SELECT replay_id FROM replay.replays WHERE state IN ('diffing', 'diffed'));

UPDATE replay.replays SET state = 'planned', is_paused = false WHERE state IN ('diffing', 'diffed');

UPDATE replay.chunks SET read_events = events WHERE diffed_at IS NOT NULL;

-- These columns keep an identity known for as long as anything can still bring it to production.

-- When the hour was opened, or restored from its archive. None of its events was processed before. NULL: opened by a
-- version that did not record it.
ALTER TABLE queue.hours ADD COLUMN opened_at timestamptz;

ALTER TABLE queue.hours ALTER opened_at SET DEFAULT clock_timestamp();

-- The last unresolved dead letter whose identity was searched in the generation. This search comes before the
-- generation is dropped.
ALTER TABLE analytics.key_generations ADD COLUMN letters_until bigint NOT NULL DEFAULT 0;

CREATE INDEX unresolved_dead_letters ON queue.dead_letters (dead_letter_id) WHERE state IN ('waiting', 'exhausted');

-- The audit's own count of production: rows by tenant and hour, counted without identity keys, batches or worker.

-- The days whose rows were counted, and PostgreSQL's statistics of their tables just before.
CREATE TABLE account.production_days (
    day        timestamptz PRIMARY KEY CHECK (day = date_trunc('day', day, 'UTC')),
    changes    text,
    counted_at timestamptz NOT NULL
);

CREATE TABLE account.production_hours (
    tenant_id  integer NOT NULL,
    hour       timestamptz NOT NULL CHECK (hour = date_trunc('hour', hour, 'UTC')),
    production bigint NOT NULL,
    shadow     bigint NOT NULL,
    -- The XOR of the hashes of the rows' identities.
    identities bigint NOT NULL,
    -- Whether the account has the same number of deliveries.
    agrees     boolean NOT NULL,
    PRIMARY KEY (hour, tenant_id)
);

-- The number of workers that died while they held the letter since its last completed attempt. Such a letter is tried
-- alone.
ALTER TABLE queue.dead_letters ADD COLUMN deaths smallint NOT NULL DEFAULT 0;

-- Each call moves a limited number of deltas into the counters, so that it ends in time however many there are.
DROP FUNCTION account.fold();

-- The keeper's chores: when each was done last, and since when it fails.
CREATE TABLE queue.chores (
    name          text PRIMARY KEY,
    done_at       timestamptz,
    -- The chore is late if it was not done for this long.
    late_after    interval NOT NULL,
    failing_since timestamptz,
    last_error    text,
    CHECK ((failing_since IS NULL) = (last_error IS NULL))
);

-- Worker processes that ended by themselves, as their pools saw it. Rows are kept for a day.
CREATE TABLE queue.worker_deaths (
    died_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    slot    integer NOT NULL,
    -- The exit status of the process. -9 is SIGKILL.
    status  integer NOT NULL
);

CREATE INDEX ON queue.worker_deaths (died_at);

-- Retention counts the time that passed, not the time that a clock shows. If the clock moved between two looks of a
-- keeper by more than the time that can have passed, the difference is recorded. Older rows are kept for that much
-- longer.
CREATE TABLE queue.clock (
    is_only boolean PRIMARY KEY DEFAULT true CHECK (is_only),
    seen_at timestamptz NOT NULL
);

CREATE TABLE queue.clock_steps (
    step_id   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- Everything before this moment, by the clock, is younger by `moved` than it seems.
    before_at timestamptz NOT NULL,
    moved     interval NOT NULL,
    -- True: a keeper that ran all the time proved it. False: the clock was not watched, and the time may have passed.
    is_proved boolean NOT NULL,
    noted_at  timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- The fields of an event that have no column of their own, and its times as they were sent. NULL: none, or the row was
-- written by an older version.
ALTER TABLE analytics.events ADD COLUMN rest jsonb;

ALTER TABLE shadow.events ADD COLUMN rest jsonb;

-- The key that signs cached look-ups. Any value in Redis without a valid signature is a miss. A forger would have to
-- read this table.
CREATE TABLE control.cache_key (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    key      bytea NOT NULL CHECK (octet_length(key) = 32)
);

INSERT INTO control.cache_key (key) VALUES (uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()));

-- The actor is always given. The database's role does not identify a person.
ALTER TABLE control.audit_log ALTER COLUMN actor DROP DEFAULT;

ALTER TABLE control.erasures ALTER COLUMN actor DROP DEFAULT;

-- The numbers of pruned rejected events and discarded dead letters, by cause. Views and recounts of an hour add them to
-- the remaining rows. They hold no content of events.
CREATE TABLE queue.pruned (
    tenant_id   integer NOT NULL REFERENCES control.tenants,
    hour        timestamptz NOT NULL CHECK (hour = date_trunc('hour', hour, 'UTC')),
    lane        queue.lane NOT NULL,
    outcome     text NOT NULL CHECK (outcome IN ('rejected', 'discarded')),
    -- 'received' for a rejected event, else the dead letter's stage.
    stage       text NOT NULL,
    -- The code of a rejected event, or the error class of a dead letter.
    cause       text NOT NULL,
    fingerprint text NOT NULL DEFAULT '',
    events      bigint NOT NULL CHECK (events > 0),
    PRIMARY KEY (tenant_id, hour, lane, outcome, stage, cause, fingerprint)
);

CREATE INDEX ON queue.pruned (hour);

CREATE INDEX discarded_dead_letters ON queue.dead_letters (resolved_at) WHERE state = 'discarded';

-- A tenant's name is one line of visible text, because it appears in tables, logs and messages. Existing names stay, so
-- the constraint is not validated.
ALTER TABLE control.tenants ADD CONSTRAINT tenants_name_can_be_seen CHECK (
    name ~ '\S' AND name !~ '[\u0001-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb]'
) NOT VALID;

-- A commit that proves that commits work. Each kind of prober has one row, which it updates repeatedly.
CREATE TABLE control.commit_probes (
    prober text PRIMARY KEY CHECK (prober <> ''),
    committed_at timestamptz NOT NULL
) WITH (fillfactor = 50);

DO $$
BEGIN
    ALTER TABLE control.tenants VALIDATE CONSTRAINT tenants_name_can_be_seen;
EXCEPTION WHEN check_violation THEN
    NULL;  -- An existing name stays as it is.
END $$;
