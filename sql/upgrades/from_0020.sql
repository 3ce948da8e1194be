-- From the last version before the baseline to the baseline: its tables and data. Functions follow.

-- A replay proves that it read what it judges, and holds the hours that it reads for as long as it reads them.
ALTER TABLE replay.replays ADD COLUMN paused_because text;

ALTER TABLE replay.chunks
    -- Events that the diff found in the chunk's batches, whether the replay wants them or not; NULL before it has.
    ADD COLUMN read_events bigint,
    -- At the commit of added rows: no batch with a lower id was processed later. NULL: unknown.
    ADD COLUMN seen_batches bigint;

-- Not taken back: since the commit the event was delivered or sent again, or its person was erased.
ALTER TABLE replay.before_images ADD COLUMN kept_newer boolean NOT NULL DEFAULT false;

CREATE INDEX dead_letters_of_an_event ON queue.dead_letters (tenant_id, event_id);

-- What earlier versions diffed without that proof is diffed again before it is committed.
DELETE FROM replay.scratch WHERE replay_id IN (SELECT replay_id FROM replay.replays WHERE state IN ('diffing', 'diffed'));

DELETE FROM replay.counts WHERE replay_id IN (SELECT replay_id FROM replay.replays WHERE state IN ('diffing', 'diffed'));

UPDATE replay.replays SET state = 'planned', is_paused = false WHERE state IN ('diffing', 'diffed');

UPDATE replay.chunks SET read_events = events WHERE diffed_at IS NOT NULL;

-- How long an identity is known, tied to everything that can still bring it to production.

-- When the hour was opened, or restored from its archive: none of its events was processed before. NULL: opened before this
-- was noted.
ALTER TABLE queue.hours ADD COLUMN opened_at timestamptz;

ALTER TABLE queue.hours ALTER opened_at SET DEFAULT clock_timestamp();

-- The last unresolved dead letter whose identity was looked for in the generation, before the generation is dropped.
ALTER TABLE analytics.key_generations ADD COLUMN letters_until bigint NOT NULL DEFAULT 0;

CREATE INDEX unresolved_dead_letters ON queue.dead_letters (dead_letter_id) WHERE state IN ('waiting', 'exhausted');

-- The audit's own look at production: rows by tenant and hour, counted without the keys, the batches or the worker.

-- The days whose rows were counted, and what PostgreSQL said of their tables just before.
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
    -- Whether the account delivered as many.
    agrees     boolean NOT NULL,
    PRIMARY KEY (hour, tenant_id)
);

-- How many workers died holding the letter since it was last tried to an end: such a letter is tried alone.
ALTER TABLE queue.dead_letters ADD COLUMN deaths smallint NOT NULL DEFAULT 0;

-- Deltas that each call moves into the counters are bounded, so that the call ends in time however many there are.
DROP FUNCTION account.fold();

-- The keeper's chores: when each was done last, and since when it fails.
CREATE TABLE queue.chores (
    name          text PRIMARY KEY,
    done_at       timestamptz,
    -- It is late when it was not done for so long.
    late_after    interval NOT NULL,
    failing_since timestamptz,
    last_error    text,
    CHECK ((failing_since IS NULL) = (last_error IS NULL))
);

-- Worker processes that ended by themselves, as their pools saw it; kept for a day.
CREATE TABLE queue.worker_deaths (
    died_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    slot    integer NOT NULL,
    -- Of the process: -9 is SIGKILL.
    status  integer NOT NULL
);

CREATE INDEX ON queue.worker_deaths (died_at);

-- Retention counts the time that passed, not what a clock shows: what the clock moved between two looks of a keeper beyond
-- what can have passed is noted, and what was there before waits that much longer.
CREATE TABLE queue.clock (
    is_only boolean PRIMARY KEY DEFAULT true CHECK (is_only),
    seen_at timestamptz NOT NULL
);

CREATE TABLE queue.clock_steps (
    step_id   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- What happened before this moment, by the clock, is older by `moved` less than it seems.
    before_at timestamptz NOT NULL,
    moved     interval NOT NULL,
    -- Proved by a keeper that ran all the time; else nobody looked, and the time may have passed.
    is_proved boolean NOT NULL,
    noted_at  timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- What an event says that has no column of its own, and its times as they were sent. NULL: nothing, or the row is older.
ALTER TABLE analytics.events ADD COLUMN rest jsonb;

ALTER TABLE shadow.events ADD COLUMN rest jsonb;

-- What cached look-ups are signed with: whatever else Redis returns is a miss. Who cannot read this table cannot forge.
CREATE TABLE control.cache_key (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    key      bytea NOT NULL CHECK (octet_length(key) = 32)
);

INSERT INTO control.cache_key (key) VALUES (uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()));

-- Who acted is always said: the database's role is nobody.
ALTER TABLE control.audit_log ALTER COLUMN actor DROP DEFAULT;

ALTER TABLE control.erasures ALTER COLUMN actor DROP DEFAULT;

-- How many rejected events and discarded dead letters were pruned, by cause: what is shown and recounted of an hour adds
-- them to the rows that are left. No word of an event is in it.
CREATE TABLE queue.pruned (
    tenant_id   integer NOT NULL REFERENCES control.tenants,
    hour        timestamptz NOT NULL CHECK (hour = date_trunc('hour', hour, 'UTC')),
    lane        queue.lane NOT NULL,
    outcome     text NOT NULL CHECK (outcome IN ('rejected', 'discarded')),
    -- 'received' of a rejected event, else the dead letter's.
    stage       text NOT NULL,
    -- The code of a rejected event, the error's class of a dead letter.
    cause       text NOT NULL,
    fingerprint text NOT NULL DEFAULT '',
    events      bigint NOT NULL CHECK (events > 0),
    PRIMARY KEY (tenant_id, hour, lane, outcome, stage, cause, fingerprint)
);

CREATE INDEX ON queue.pruned (hour);

CREATE INDEX discarded_dead_letters ON queue.dead_letters (resolved_at) WHERE state = 'discarded';

-- A tenant's name is one line of text that can be seen: it stands in tables, logs and messages. Names that are there
-- already stay, so the constraint is not validated.
ALTER TABLE control.tenants ADD CONSTRAINT tenants_name_can_be_seen CHECK (
    name ~ '\S' AND name !~ '[\u0001-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb]'
) NOT VALID;

-- A commit that proves that commits work: one row for each kind of prober, written again and again.
CREATE TABLE control.commit_probes (
    prober text PRIMARY KEY CHECK (prober <> ''),
    committed_at timestamptz NOT NULL
) WITH (fillfactor = 50);

DO $$
BEGIN
    ALTER TABLE control.tenants VALIDATE CONSTRAINT tenants_name_can_be_seen;
EXCEPTION WHEN check_violation THEN
    NULL;  -- A name from before stays as it is.
END $$;
