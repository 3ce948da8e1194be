-- The tables, types and indexes. Functions, views and triggers are in sql/functions; sql/schema.sql shows all of it.

-- Who may send, what is known of them, and what operators did.
CREATE SCHEMA control;

CREATE TABLE control.tenants (
    tenant_id    integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name         text NOT NULL UNIQUE CHECK (length(name) BETWEEN 1 AND 200),
    plan         text NOT NULL DEFAULT 'free',
    -- Events a second before a tenant's events wait in the overflow lane; NULL: the setting tenant_events_per_s.
    events_per_s integer CHECK (events_per_s > 0),
    created_at   timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT tenants_name_can_be_seen CHECK (
        name ~ '\S' AND name !~ '[\u0001-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb]'
    )
);

CREATE TABLE control.write_keys (
    key_id     integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- SHA-256 of a 256-bit random key: the key itself is shown once and stored nowhere.
    key_hash   bytea NOT NULL UNIQUE CHECK (octet_length(key_hash) = 32),
    tenant_id  integer NOT NULL REFERENCES control.tenants,
    label      text NOT NULL DEFAULT '',
    created_at timestamptz NOT NULL DEFAULT now(),
    revoked_at timestamptz
);

CREATE INDEX ON control.write_keys (tenant_id);

-- One row a trait, so that identify and group events may arrive in any order: the newest as_of wins, by name.
CREATE TABLE control.traits (
    tenant_id  integer NOT NULL REFERENCES control.tenants,
    kind       text NOT NULL CHECK (kind IN ('user', 'group')),
    subject_id text NOT NULL,
    name       text NOT NULL,
    value      jsonb NOT NULL,
    as_of      timestamptz NOT NULL,
    event_id   uuid NOT NULL,
    PRIMARY KEY (tenant_id, kind, subject_id, name)
);

-- One open row a cause; what must reach a person is delivered from here.
CREATE TABLE control.alerts (
    alert_id     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind         text NOT NULL,
    fingerprint  text NOT NULL,
    tenant_id    integer REFERENCES control.tenants,
    message      text NOT NULL,
    occurrences  bigint NOT NULL DEFAULT 1,
    opened_at    timestamptz NOT NULL DEFAULT now(),
    last_seen_at timestamptz NOT NULL DEFAULT now(),
    resolved_at  timestamptz,
    -- Alerts leave the database: what opens or resolves one is noted by the transaction that does it, and delivered from
    -- there, once a channel.
    sample_id text
);

CREATE TABLE control.audit_log (
    entry_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at       timestamptz NOT NULL DEFAULT now(),
    actor    text NOT NULL,
    action   text NOT NULL,
    reason   text NOT NULL,
    detail   jsonb NOT NULL DEFAULT '{}'
);

-- The account of every event. Deltas are appended by the transaction that does the work and folded into
-- counters later, so that no two transactions ever wait for each other's counter; the view adds both up.
CREATE SCHEMA queue;

CREATE SCHEMA account;

CREATE TYPE queue.lane AS ENUM ('live', 'overflow', 'retry', 'replay');

CREATE TABLE account.counters (
    tenant_id     integer NOT NULL,
    hour          timestamptz NOT NULL CHECK (hour = date_trunc('hour', hour, 'UTC')),
    lane          queue.lane NOT NULL,
    received      bigint NOT NULL DEFAULT 0,
    accepted      bigint NOT NULL DEFAULT 0,
    rejected      bigint NOT NULL DEFAULT 0,
    claimed       bigint NOT NULL DEFAULT 0,
    enriched      bigint NOT NULL DEFAULT 0,
    delivered     bigint NOT NULL DEFAULT 0,
    duplicate     bigint NOT NULL DEFAULT 0,
    dead_lettered bigint NOT NULL DEFAULT 0,
    discarded     bigint NOT NULL DEFAULT 0,
    in_flight     bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant_id, hour, lane)
);

CREATE INDEX ON account.counters (hour);

CREATE TABLE account.deltas (LIKE account.counters INCLUDING DEFAULTS);

ALTER TABLE account.deltas SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000);

-- The durable queue: one append-only row a group commit, and a narrow row of work beside it.
CREATE SEQUENCE queue.batch_ids;

CREATE TABLE queue.batches (
    batch_id     bigint NOT NULL,
    received_at  timestamptz NOT NULL,
    lane         queue.lane NOT NULL,
    events       integer NOT NULL CHECK (events > 0),
    tenant_ids   integer[] NOT NULL,
    event_ids    uuid[] NOT NULL,
    -- The client's own time; NULL where it gave none that can be used.
    client_ats   timestamptz[] NOT NULL,
    -- Each event's own received_at, where history was imported; NULL: all of the batch share received_at.
    received_ats timestamptz[],
    -- First letter of track, identify, page, screen, group, alias.
    types        "char"[] NOT NULL,
    lengths      integer[] NOT NULL,
    -- What an event's request said around it (JSON: context, sentAt); 0: nothing, else an index into envelopes.
    envelope_of  integer[],
    envelopes    bytea[],
    codec        text NOT NULL CHECK (codec IN ('plain', 'zstd')),
    -- The original bytes of all events, one after the other.
    payload      bytea NOT NULL,
    epoch integer NOT NULL DEFAULT 1,
    -- The XOR of the hashes of a batch's identities, so that what was accepted in a window and what was delivered can be seen
    -- to be the same without unfolding any batch. NULL: nobody added it up (imports, archives, older batches).
    identities bigint,
    PRIMARY KEY (batch_id, received_at),
    CHECK (cardinality(tenant_ids) = events AND cardinality(event_ids) = events
           AND cardinality(client_ats) = events AND cardinality(types) = events
           AND cardinality(lengths) = events
           AND (received_ats IS NULL OR cardinality(received_ats) = events)
           AND (envelope_of IS NULL OR cardinality(envelope_of) = events))
) PARTITION BY RANGE (received_at);

-- Compressed by the gateway or incompressible: another pass by the server would only cost latency.
ALTER TABLE queue.batches
    ALTER payload SET STORAGE EXTERNAL, ALTER event_ids SET STORAGE EXTERNAL, ALTER client_ats SET STORAGE EXTERNAL;

-- What is to be done: deleted when done. A batch that crashed its worker is split by event range.
CREATE TABLE queue.work (
    lane        queue.lane NOT NULL,
    work_id     bigint GENERATED ALWAYS AS IDENTITY,
    batch_id    bigint NOT NULL,
    received_at timestamptz NOT NULL,
    first_event integer NOT NULL DEFAULT 0,
    end_event   integer NOT NULL,
    -- How many workers died holding it: counted by their pool (query reap), since their transactions leave no trace.
    attempts    smallint NOT NULL DEFAULT 0,
    PRIMARY KEY (lane, work_id),
    CHECK (first_event >= 0 AND end_event > first_event)
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);

CREATE INDEX suspect_work ON queue.work (work_id) WHERE attempts > 0;

CREATE TABLE queue.hours (
    hour       timestamptz PRIMARY KEY CHECK (hour = date_trunc('hour', hour, 'UTC')),
    sealed_at  timestamptz,
    -- How often it was sealed: an import opens a sealed hour again.
    seals      integer NOT NULL DEFAULT 0,
    dropped_at timestamptz,
    -- How long an identity is known, tied to everything that can still bring it to production.

    -- When the hour was opened, or restored from its archive: none of its events was processed before. NULL: opened before this
    -- was noted.
    opened_at  timestamptz DEFAULT clock_timestamp()
);

CREATE TABLE queue.quarantine (
    tenant_id     integer NOT NULL REFERENCES control.tenants,
    quarantine_id bigint GENERATED ALWAYS AS IDENTITY,
    received_at   timestamptz NOT NULL,
    lane          queue.lane NOT NULL,
    message_id    text,
    code          text NOT NULL,
    message       text NOT NULL,
    payload       bytea NOT NULL,
    -- When a rejected event was let in after all, corrected. It stays what it was: received and rejected; what was let in is
    -- received once more.
    readmitted_at timestamptz,
    PRIMARY KEY (tenant_id, quarantine_id)
);

CREATE INDEX ON queue.quarantine (received_at);

CREATE TABLE queue.dead_letters (
    tenant_id       integer NOT NULL REFERENCES control.tenants,
    dead_letter_id  bigint GENERATED ALWAYS AS IDENTITY,
    event_id        uuid NOT NULL,
    message_id      text,
    type            "char" NOT NULL,
    lane            queue.lane NOT NULL,
    batch_id        bigint NOT NULL,
    event_index     integer NOT NULL,
    batch_received_at timestamptz NOT NULL,
    received_at     timestamptz NOT NULL,
    client_at       timestamptz,
    envelope        bytea,
    payload         bytea NOT NULL,
    stage           text NOT NULL CHECK (stage IN ('claim', 'enrich', 'transform', 'load')),
    error_class     text NOT NULL,
    error           text NOT NULL,
    fingerprint     text NOT NULL,
    state           text NOT NULL CHECK (state IN ('waiting', 'exhausted', 'delivered', 'duplicate', 'discarded')),
    attempts        smallint NOT NULL CHECK (attempts BETWEEN 1 AND 100),
    next_attempt_at timestamptz,
    created_at      timestamptz NOT NULL DEFAULT now(),
    resolved_at     timestamptz,
    reason          text,
    epoch integer NOT NULL DEFAULT 1,
    -- How many workers died holding the letter since it was last tried to an end: such a letter is tried alone.
    deaths smallint NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant_id, dead_letter_id),
    CHECK ((state = 'waiting') = (next_attempt_at IS NOT NULL)),
    CHECK ((state IN ('delivered', 'duplicate', 'discarded')) = (resolved_at IS NOT NULL)),
    CHECK (state <> 'discarded' OR reason IS NOT NULL)
);

CREATE UNIQUE INDEX one_dead_letter_an_occurrence ON queue.dead_letters (batch_id, event_index);

CREATE INDEX waiting_dead_letters ON queue.dead_letters (next_attempt_at) WHERE state = 'waiting';

CREATE INDEX ON queue.dead_letters (batch_received_at);

-- What users query, and the keys that make every event count once.
CREATE SCHEMA analytics;

-- A generation of keys is written until it is closed, then only read: uniqueness within the open one is its primary
-- key, against the closed ones a look-up. Whoever inserts keys holds key_lock shared; closing takes it exclusively, so
-- no two transactions ever write into different generations at once.
CREATE TABLE analytics.key_generations (
    generation integer PRIMARY KEY,
    opened_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    closed_at  timestamptz,
    -- The last unresolved dead letter whose identity was looked for in the generation, before the generation is dropped.
    letters_until bigint NOT NULL DEFAULT 0
);

CREATE TABLE analytics.keys (
    generation  integer NOT NULL,
    tenant_id   integer NOT NULL,
    event_id    uuid NOT NULL,
    received_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, event_id, generation)
) PARTITION BY LIST (generation);

CREATE TABLE analytics.keys_1 PARTITION OF analytics.keys FOR VALUES IN (1);

INSERT INTO analytics.key_generations (generation) VALUES (1);

CREATE TABLE analytics.events (
    tenant_id    integer NOT NULL,
    event_id     uuid NOT NULL,
    message_id   text NOT NULL,
    type         text NOT NULL CHECK (type IN ('track', 'identify', 'page', 'screen', 'group', 'alias')),
    name         text,
    user_id      text,
    anonymous_id text,
    group_id     text,
    previous_id  text,
    occurred_at  timestamptz NOT NULL,
    received_at  timestamptz NOT NULL,
    delivered_at timestamptz NOT NULL,
    properties   jsonb,
    traits       jsonb,
    context      jsonb,
    tenant_name  text,
    tenant_plan  text,
    user_traits  jsonb,
    group_traits jsonb,
    batch_id     bigint NOT NULL,
    epoch integer NOT NULL DEFAULT 1,
    -- The recovery that brought the row from shadow.events into production.
    recovery_id bigint,
    replay_id bigint,
    -- reconcile.digest of reconcile.kept_columns(); NULL: whoever compares computes it. A worker keeps it with the rows of
    -- mirrored epochs only. Not a generated column: adding one would rewrite every day of analytics.events under a lock.
    digest bigint,
    -- What an event says that has no column of its own, and its times as they were sent. NULL: nothing, or the row is older.
    rest jsonb,
    PRIMARY KEY (tenant_id, received_at, event_id)
) PARTITION BY RANGE (received_at);

-- Bringing history in: what was imported, piece by piece, so that a killed import goes on where it ended.
CREATE TABLE control.imports (
    -- SHA-256 of the content and the options: the same file with the same options is the same import.
    import_id   text PRIMARY KEY CHECK (length(import_id) = 64),
    source      text NOT NULL,
    -- Added to every time of the file: fixed by the first run, the same in every later one.
    shift       interval NOT NULL,
    started_at  timestamptz NOT NULL,
    finished_at timestamptz
);

-- One row a chunk, written in the transaction that imports it.
CREATE TABLE control.import_chunks (
    import_id text NOT NULL REFERENCES control.imports,
    hour      timestamptz NOT NULL CHECK (hour = date_trunc('hour', hour, 'UTC')),
    chunk     integer NOT NULL CHECK (chunk >= 0),
    -- NULL: all of its events were rejected.
    batch_id  bigint,
    accepted  integer NOT NULL,
    rejected  integer NOT NULL,
    PRIMARY KEY (import_id, hour, chunk)
);

-- Moving over from an old pipeline: which pipeline is production is one row with an epoch, stamped on each batch in the
-- transaction that accepts it. So each event is production's through exactly one pipeline, whenever the flag turns.
CREATE TYPE control.phase AS ENUM ('legacy_only', 'shadow', 'platform_primary', 'legacy_off');

-- The newest epoch is in force. Rows are never changed: what a batch was stamped with stays true.
CREATE TABLE control.epochs (
    epoch       integer PRIMARY KEY,
    phase       control.phase NOT NULL,
    opened_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- The old pipeline is production; the platform writes beside it, into shadow.events.
    is_shadow   boolean NOT NULL GENERATED ALWAYS AS (phase IN ('legacy_only', 'shadow')) STORED,
    -- Every accepted event goes to the old pipeline as well.
    is_mirrored boolean NOT NULL GENERATED ALWAYS AS (phase <> 'legacy_off') STORED
);

-- What is imported belongs to it too: history is the platform's, and is mirrored to nobody.
INSERT INTO control.epochs (epoch, phase) VALUES (1, 'legacy_off');

-- What the platform delivers while the old pipeline is production.
CREATE SCHEMA shadow;

CREATE TABLE shadow.events (LIKE analytics.events INCLUDING ALL) PARTITION BY RANGE (received_at);

-- Batches that the mirror has still to forward; a row is deleted when its fate is known.
CREATE TABLE queue.mirror (
    mirror_id   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    batch_id    bigint NOT NULL,
    received_at timestamptz NOT NULL,
    events      integer NOT NULL,
    -- Set and committed before the first byte is sent. The old pipeline has no idempotency, so what a mirror that died
    -- may have sent is never sent again: it is counted as lost by the mirror, and recovered where it is missing.
    sending_at  timestamptz
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);

-- The old pipeline: its own table, and what its stages reported.
CREATE SCHEMA legacy;

CREATE TABLE legacy.events (
    tenant_id    integer NOT NULL,
    event_id     uuid NOT NULL,
    message_id   text NOT NULL,
    type         text NOT NULL,
    name         text,
    user_id      text,
    anonymous_id text,
    group_id     text,
    previous_id  text,
    occurred_at  timestamptz NOT NULL,
    arrived_at   timestamptz NOT NULL,
    delivered_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    properties   jsonb,
    traits       jsonb,
    context      jsonb,
    tenant_plan  text,
    user_traits  jsonb,
    digest bigint
);

-- No uniqueness: what is sent twice is stored twice. The index is for those who look an event up.
CREATE INDEX ON legacy.events (tenant_id, event_id);

CREATE INDEX ON legacy.events (arrived_at);

-- What the old pipeline's stages counted, by the hour of the event's arrival at its gateway. Stages in their order:
-- mirror, gateway, queue, lookup, write.
CREATE TABLE legacy.stage_counts (
    tenant_id integer NOT NULL,
    hour      timestamptz NOT NULL CHECK (hour = date_trunc('hour', hour, 'UTC')),
    stage     text NOT NULL,
    arrived   bigint NOT NULL DEFAULT 0,
    proceeded bigint NOT NULL DEFAULT 0,
    failed    bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant_id, hour, stage)
);

-- Which event a stage reported as lost, and why. What nobody reports (a crash) is found by comparing outputs only.
CREATE TABLE legacy.losses (
    tenant_id integer NOT NULL,
    event_id  uuid NOT NULL,
    stage     text NOT NULL,
    cause     text NOT NULL,
    lost_at   timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE INDEX ON legacy.losses (tenant_id, event_id);

CREATE INDEX ON legacy.losses (lost_at);

-- The old pipeline to move over from: where the mirror sends, and what its output is compared by.
CREATE TABLE control.legacy_target (
    only_row         boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    -- NULL: nobody is sent anything, and what is mirrored counts as lost at stage mirror.
    forward_url      text,
    headers          jsonb NOT NULL DEFAULT '{}',
    -- Of what it answered with 429 or 5xx; what it may have taken is never sent again.
    retries          integer NOT NULL DEFAULT 0 CHECK (retries BETWEEN 0 AND 10),
    timeout_s        double precision NOT NULL DEFAULT 5 CHECK (timeout_s > 0),
    requests_at_once integer NOT NULL DEFAULT 32 CHECK (requests_at_once BETWEEN 1 AND 1000),
    -- Batches that wait longer are given up, so that an old pipeline that is away for days does not fill the disk.
    give_up_s        double precision NOT NULL DEFAULT 3600 CHECK (give_up_s > 0),
    -- How long after the last mirrored batch it may still deliver.
    settle_s         double precision NOT NULL DEFAULT 300 CHECK (settle_s >= 0),
    -- Columns of legacy.output whose values are compared.
    compared         text[] NOT NULL DEFAULT ARRAY['type', 'name', 'user_id', 'anonymous_id', 'properties', 'traits', 'context'],
    -- The user's own table behind legacy.output; NULL: legacy.events.
    output_table     text,
    configured_at    timestamptz NOT NULL DEFAULT clock_timestamp()
);

INSERT INTO control.legacy_target DEFAULT VALUES;

-- What a tenant's requests to the old pipeline are authorized with.
CREATE TABLE control.legacy_keys (
    tenant_id integer PRIMARY KEY REFERENCES control.tenants,
    write_key text NOT NULL
);

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

-- Erasure: what a person's events said is removed everywhere; what is kept is that there were events, and a tombstone.
CREATE TABLE control.erasures (
    erasure_id   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id    integer NOT NULL REFERENCES control.tenants,
    -- control.id_hash of the user id that was named: the id itself is kept nowhere.
    subject_hash bytea NOT NULL CHECK (octet_length(subject_hash) = 32),
    reason       text NOT NULL CHECK (reason <> ''),
    actor        text NOT NULL,
    -- What was received before is erased; what the person sends later is accepted as anybody's.
    erased_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- NULL: it was interrupted. The same command goes on with it.
    finished_at  timestamptz,
    counts       jsonb NOT NULL DEFAULT '{}'
);

CREATE UNIQUE INDEX one_unfinished_erasure_a_person ON control.erasures (tenant_id, subject_hash)
    WHERE finished_at IS NULL;

-- Every id that the person was known by, as its hash: what brings old events in again must leave these out.
CREATE TABLE control.tombstones (
    tenant_id  integer NOT NULL REFERENCES control.tenants,
    kind       text NOT NULL CHECK (kind IN ('user', 'anonymous')),
    id_hash    bytea NOT NULL CHECK (octet_length(id_hash) = 32),
    erased_at  timestamptz NOT NULL,
    erasure_id bigint NOT NULL REFERENCES control.erasures,
    PRIMARY KEY (tenant_id, kind, id_hash)
);

-- Every accepted event that was erased, by its place in the queue, so that the account can still be recounted. Its
-- identity stays in analytics.keys: sent again, it is a duplicate.
CREATE TABLE control.erased_events (
    tenant_id         integer NOT NULL,
    batch_id          bigint NOT NULL,
    -- -1: a delivered event whose batch was dropped before.
    event_index       integer NOT NULL CHECK (event_index >= -1),
    event_id          uuid NOT NULL,
    batch_received_at timestamptz NOT NULL,
    -- What it was until then. delivered, dead_lettered and in_flight count as discarded from then on, or once a worker
    -- has met them; the others stay what they were.
    was               text NOT NULL CHECK (was IN ('delivered', 'dead_lettered', 'in_flight', 'duplicate', 'discarded')),
    erasure_id        bigint NOT NULL REFERENCES control.erasures,
    PRIMARY KEY (tenant_id, batch_id, event_index, event_id)
);

CREATE INDEX ON control.erased_events (tenant_id, event_id);

CREATE INDEX ON control.erased_events (batch_received_at);

CREATE INDEX ON control.erased_events (erasure_id);

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
    pruned_at      timestamptz,
    -- A replay proves that it read what it judges, and holds the hours that it reads for as long as it reads them.
    paused_because text
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
    -- Events that the diff found in the chunk's batches, whether the replay wants them or not; NULL before it has.
    read_events  bigint,
    -- At the commit of added rows: no batch with a lower id was processed later. NULL: unknown.
    seen_batches bigint,
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
    -- Not taken back: since the commit the event was delivered or sent again, or its person was erased.
    kept_newer boolean NOT NULL DEFAULT false,
    PRIMARY KEY (replay_id, tenant_id, event_id)
);

CREATE INDEX ON replay.before_images (replay_id, chunk);

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

-- The circuit: workers stop taking work while most of it would become dead letters, as after a bad deploy. What is
-- accepted waits meanwhile.
CREATE TABLE control.circuits (
    circuit_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    opened_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    message    text NOT NULL,
    -- NULL: it is open, and nothing is processed.
    closed_at  timestamptz,
    reason     text
);

CREATE UNIQUE INDEX one_open_circuit ON control.circuits ((true)) WHERE closed_at IS NULL;

CREATE INDEX ON queue.dead_letters (resolved_at) WHERE resolved_at IS NOT NULL;

CREATE UNIQUE INDEX one_open_alert_a_cause ON control.alerts (kind, fingerprint, tenant_id) NULLS NOT DISTINCT
    WHERE resolved_at IS NULL;

CREATE TABLE control.alert_notifications (
    notification_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    alert_id        bigint NOT NULL REFERENCES control.alerts ON DELETE CASCADE,
    change          text NOT NULL CHECK (change IN ('opened', 'resolved')),
    noted_at        timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- Whether each channel of that time has its row in alert_deliveries.
    is_addressed    boolean NOT NULL DEFAULT false,
    UNIQUE (alert_id, change)
);

CREATE INDEX notifications_to_address ON control.alert_notifications (notification_id) WHERE NOT is_addressed;

-- How each channel answers.
CREATE TABLE control.alert_channels (
    -- Its schema and a hash of its URL, which holds secrets and is stored nowhere.
    channel         text PRIMARY KEY,
    failures        integer NOT NULL DEFAULT 0,
    failing_since   timestamptz,
    next_attempt_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    last_error      text,
    sent_at         timestamptz,
    CHECK ((failures > 0) = (failing_since IS NOT NULL))
);

CREATE TABLE control.alert_deliveries (
    channel         text NOT NULL REFERENCES control.alert_channels ON DELETE CASCADE,
    notification_id bigint NOT NULL REFERENCES control.alert_notifications ON DELETE CASCADE,
    sent_at         timestamptz,
    PRIMARY KEY (channel, notification_id)
);

CREATE INDEX deliveries_to_send ON control.alert_deliveries (channel, notification_id) WHERE sent_at IS NULL;

CREATE INDEX ON control.alert_deliveries (notification_id);

-- A number that should move, and since when it has not.
CREATE TABLE control.alert_marks (
    name  text PRIMARY KEY,
    value bigint NOT NULL,
    since timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- What Dagster's sensors and schedules did last, as one of the sensors reports it.
CREATE TABLE control.sensor_ticks (
    name        text PRIMARY KEY,
    -- How often it should tick; NULL: a schedule.
    interval_s  double precision,
    ticked_at   timestamptz,
    error       text,
    reported_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE INDEX exhausted_dead_letters ON queue.dead_letters (tenant_id, fingerprint) WHERE state = 'exhausted';

CREATE INDEX drifting_results ON reconcile.results (tenant_id) WHERE missing + extra + mismatched > 0;

-- What metrics read: sums that only grow and cost the same however many hours there are, and the latency of deliveries.

-- Counted once and never taken back: an event that is erased, or a dead letter that is delivered after all, stays in the
-- sums (account.counters takes it back). in_flight alone goes both ways.
CREATE TABLE account.totals (
    tenant_id     integer PRIMARY KEY,
    received      bigint NOT NULL CHECK (received >= 0),
    accepted      bigint NOT NULL CHECK (accepted >= 0),
    rejected      bigint NOT NULL CHECK (rejected >= 0),
    claimed       bigint NOT NULL CHECK (claimed >= 0),
    enriched      bigint NOT NULL CHECK (enriched >= 0),
    delivered     bigint NOT NULL CHECK (delivered >= 0),
    duplicate     bigint NOT NULL CHECK (duplicate >= 0),
    dead_lettered bigint NOT NULL CHECK (dead_lettered >= 0),
    discarded     bigint NOT NULL CHECK (discarded >= 0),
    in_flight     bigint NOT NULL
-- A row is updated every second.
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);

-- Written by the transaction that delivers, like account.deltas; of events delivered at once, history left out.
CREATE TABLE account.latency_deltas (
    lane    queue.lane NOT NULL,
    bucket  smallint NOT NULL,
    events  bigint NOT NULL,
    seconds float8 NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000);

CREATE TABLE account.latencies (
    lane    queue.lane NOT NULL,
    bucket  smallint NOT NULL,
    events  bigint NOT NULL,
    seconds float8 NOT NULL,
    PRIMARY KEY (lane, bucket)
) WITH (fillfactor = 50);

-- What dashboards read: events by tenant, hour, type and name, and what keeps it right whatever changes the rows.

-- Adds up over anything. `hour` is of occurred_at, which is what is asked for; received_hour is of received_at: one
-- stretch of the rows' primary key, so that a cell can be counted anew without reading anything else.
CREATE TABLE analytics.rollups (
    tenant_id     integer NOT NULL,
    hour          timestamptz NOT NULL CHECK (hour = date_trunc('hour', hour, 'UTC')),
    received_hour timestamptz NOT NULL CHECK (received_hour = date_trunc('hour', received_hour, 'UTC')),
    type          text NOT NULL,
    name          text,
    events        bigint NOT NULL CHECK (events > 0),
    UNIQUE NULLS NOT DISTINCT (tenant_id, hour, received_hour, type, name)
);

CREATE INDEX ON analytics.rollups (received_hour, tenant_id);

-- Whose rows of which hour of received_at have changed. Appended by the transaction that changes them, never shared and
-- never skipped because there is one: what a transaction changed can be seen exactly where its mark can be seen.
CREATE TABLE analytics.rollup_marks (
    mark_id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id     integer NOT NULL,
    received_hour timestamptz NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000);

CREATE INDEX ON analytics.rollup_marks (tenant_id, received_hour);

-- When cells of an hour of received_at last changed, and when they were last compared with the rows.
CREATE TABLE analytics.rollup_hours (
    received_hour timestamptz PRIMARY KEY,
    changed_at    timestamptz,
    checked_at    timestamptz
);

CREATE INDEX dead_letters_of_an_event ON queue.dead_letters (tenant_id, event_id);

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

-- What cached look-ups are signed with: whatever else Redis returns is a miss. Who cannot read this table cannot forge.
CREATE TABLE control.cache_key (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    key      bytea NOT NULL CHECK (octet_length(key) = 32)
);

INSERT INTO control.cache_key (key) VALUES (uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()));

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

-- A commit that proves that commits work: one row for each kind of prober, written again and again.
CREATE TABLE control.commit_probes (
    prober text PRIMARY KEY CHECK (prober <> ''),
    committed_at timestamptz NOT NULL
) WITH (fillfactor = 50);

-- The old pipeline's output, as comparisons and production read it: replaced where it is a table of the user's own.
CREATE VIEW legacy.output AS
SELECT tenant_id, event_id, message_id, type, name, user_id, anonymous_id, group_id, previous_id, occurred_at,
       arrived_at AS received_at, delivered_at, properties, traits, context, digest
FROM legacy.events;
