-- The tables, types and indexes. Functions, views and triggers are in sql/functions. sql/schema.sql shows all of it.

-- Tenants and write keys, traits, alerts, and the actions of operators.
CREATE SCHEMA control;

CREATE TABLE control.tenants (
    tenant_id    integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name         text NOT NULL UNIQUE CHECK (length(name) BETWEEN 1 AND 200),
    plan         text NOT NULL DEFAULT 'free',
    -- The quota: above this number of events per second, events go to the overflow lane. NULL: the setting
    -- tenant_events_per_s.
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

-- One row per trait, so that identify and group events may arrive in any order. The newest as_of of each name wins.
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

-- One open row per cause. Alerts are delivered from here.
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
    -- The transaction that opens or resolves an alert adds a notification. Each notification is delivered once per
    -- channel.
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

-- The account of every event. The transaction that does the work appends deltas. They are folded into counters later,
-- so that no transaction waits for another one's counter. The view adds both up.
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

-- The durable queue: one append-only row per group commit, and a narrow row of work beside it.
CREATE SEQUENCE queue.batch_ids;

CREATE TABLE queue.batches (
    batch_id     bigint NOT NULL,
    received_at  timestamptz NOT NULL,
    lane         queue.lane NOT NULL,
    events       integer NOT NULL CHECK (events > 0),
    tenant_ids   integer[] NOT NULL,
    event_ids    uuid[] NOT NULL,
    -- The client's own time. NULL: it sent no usable time.
    client_ats   timestamptz[] NOT NULL,
    -- Each event's own received_at, for imports. NULL: all events of the batch share received_at.
    received_ats timestamptz[],
    -- First letter of track, identify, page, screen, group, alias.
    types        "char"[] NOT NULL,
    lengths      integer[] NOT NULL,
    -- The envelope of an event's request (JSON: context, sentAt), as an index into envelopes. 0: none.
    envelope_of  integer[],
    envelopes    bytea[],
    codec        text NOT NULL CHECK (codec IN ('plain', 'zstd')),
    -- The original bytes of all events, one after the other.
    payload      bytea NOT NULL,
    epoch integer NOT NULL DEFAULT 1,
    -- The XOR of the hashes of a batch's identities. It shows that the accepted and the delivered events of a window
    -- are the same, without reading the events of any batch. NULL: not computed (imports, archives, older batches).
    identities bigint,
    PRIMARY KEY (batch_id, received_at),
    CHECK (cardinality(tenant_ids) = events AND cardinality(event_ids) = events
           AND cardinality(client_ats) = events AND cardinality(types) = events
           AND cardinality(lengths) = events
           AND (received_ats IS NULL OR cardinality(received_ats) = events)
           AND (envelope_of IS NULL OR cardinality(envelope_of) = events))
) PARTITION BY RANGE (received_at);

-- The payload is compressed by the gateway or incompressible. Compression by the server would only cost latency.
ALTER TABLE queue.batches
    ALTER payload SET STORAGE EXTERNAL, ALTER event_ids SET STORAGE EXTERNAL, ALTER client_ats SET STORAGE EXTERNAL;

-- Unfinished work. A row is deleted when it is done. A batch that crashed its worker is split by event range.
CREATE TABLE queue.work (
    lane        queue.lane NOT NULL,
    work_id     bigint GENERATED ALWAYS AS IDENTITY,
    batch_id    bigint NOT NULL,
    received_at timestamptz NOT NULL,
    first_event integer NOT NULL DEFAULT 0,
    end_event   integer NOT NULL,
    -- The number of workers that died while they held it. Their pool counts them (query reap), because their
    -- transactions leave no trace.
    attempts    smallint NOT NULL DEFAULT 0,
    PRIMARY KEY (lane, work_id),
    CHECK (first_event >= 0 AND end_event > first_event)
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);

CREATE INDEX suspect_work ON queue.work (work_id) WHERE attempts > 0;

CREATE TABLE queue.hours (
    hour       timestamptz PRIMARY KEY CHECK (hour = date_trunc('hour', hour, 'UTC')),
    sealed_at  timestamptz,
    -- How often the hour was sealed. An import opens a sealed hour again.
    seals      integer NOT NULL DEFAULT 0,
    dropped_at timestamptz,
    -- These columns keep an identity known for as long as anything can still bring it to production.

    -- When the hour was opened, or restored from its archive. None of its events was processed before. NULL: opened by
    -- a version that did not record it.
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
    -- When a rejected event was readmitted. It still counts as received and rejected. The readmitted event is received
    -- once more.
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
    -- The number of workers that died while they held the letter since its last completed attempt. Such a letter is
    -- tried alone.
    deaths smallint NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant_id, dead_letter_id),
    CHECK ((state = 'waiting') = (next_attempt_at IS NOT NULL)),
    CHECK ((state IN ('delivered', 'duplicate', 'discarded')) = (resolved_at IS NOT NULL)),
    CHECK (state <> 'discarded' OR reason IS NOT NULL)
);

CREATE UNIQUE INDEX one_dead_letter_an_occurrence ON queue.dead_letters (batch_id, event_index);

CREATE INDEX waiting_dead_letters ON queue.dead_letters (next_attempt_at) WHERE state = 'waiting';

CREATE INDEX ON queue.dead_letters (batch_received_at);

-- What users query, and the identity keys that make every event count once.
CREATE SCHEMA analytics;

-- A generation of identity keys is written until it is closed, then only read. In the open generation the primary key
-- ensures uniqueness. The closed ones are checked by look-ups. Writers of identity keys hold key_lock shared. Closing
-- takes it exclusively, so that no two transactions write into different generations at once.
CREATE TABLE analytics.key_generations (
    generation integer PRIMARY KEY,
    opened_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    closed_at  timestamptz,
    -- The last unresolved dead letter whose identity was searched in the generation. This search comes before the
    -- generation is dropped.
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
    -- reconcile.digest of reconcile.kept_columns(). NULL: a comparison computes it. A worker keeps it with the rows of
    -- mirrored epochs only. Not a generated column: adding one would rewrite every day of analytics.events under a
    -- lock.
    digest bigint,
    -- The fields of an event that have no column of their own, and its times as they were sent. NULL: none, or the row
    -- was written by an older version.
    rest jsonb,
    PRIMARY KEY (tenant_id, received_at, event_id)
) PARTITION BY RANGE (received_at);

-- Imports and their chunks. A killed import continues where it ended.
CREATE TABLE control.imports (
    -- SHA-256 of the content and the options. The same file with the same options is the same import.
    import_id   text PRIMARY KEY CHECK (length(import_id) = 64),
    source      text NOT NULL,
    -- Added to every time of the file. The first run fixes it, and every later run uses the same value.
    shift       interval NOT NULL,
    started_at  timestamptz NOT NULL,
    finished_at timestamptz
);

-- One row per chunk, written in the transaction that imports it.
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

-- The cutover from a legacy pipeline. One row with an epoch says which pipeline is production. The transaction that
-- accepts a batch stamps the epoch on it. So each event gets into production through exactly one pipeline, whenever the
-- phase changes.
CREATE TYPE control.phase AS ENUM ('legacy_only', 'shadow', 'platform_primary', 'legacy_off');

-- The newest epoch is in force. Rows never change, so the stamp of a batch stays true.
CREATE TABLE control.epochs (
    epoch       integer PRIMARY KEY,
    phase       control.phase NOT NULL,
    opened_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- The legacy pipeline is production, and the platform writes to shadow.events.
    is_shadow   boolean NOT NULL GENERATED ALWAYS AS (phase IN ('legacy_only', 'shadow')) STORED,
    -- Every accepted event goes to the old pipeline as well.
    is_mirrored boolean NOT NULL GENERATED ALWAYS AS (phase <> 'legacy_off') STORED
);

-- Imports belong to this epoch too: they are the platform's and are not mirrored.
INSERT INTO control.epochs (epoch, phase) VALUES (1, 'legacy_off');

-- What the platform delivers while the old pipeline is production.
CREATE SCHEMA shadow;

CREATE TABLE shadow.events (LIKE analytics.events INCLUDING ALL) PARTITION BY RANGE (received_at);

-- Batches that the mirror still has to forward. A row is deleted when the fate of its batch is known.
CREATE TABLE queue.mirror (
    mirror_id   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    batch_id    bigint NOT NULL,
    received_at timestamptz NOT NULL,
    events      integer NOT NULL,
    -- Set and committed before the first byte is sent. The legacy pipeline is not idempotent, so events that a mirror
    -- may have sent before it died are never sent again. They are counted as lost by the mirror, and recovered if they
    -- are missing.
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

-- The index is not unique: an event that is sent twice is stored twice. It serves look-ups of an event.
CREATE INDEX ON legacy.events (tenant_id, event_id);

CREATE INDEX ON legacy.events (arrived_at);

-- The counts of the legacy pipeline's stages, by the hour of the event's arrival at its gateway. The stages in order:
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

-- The events that a stage reported as lost, and why. Unreported losses (after a crash) are found only by comparing the
-- outputs.
CREATE TABLE legacy.losses (
    tenant_id integer NOT NULL,
    event_id  uuid NOT NULL,
    stage     text NOT NULL,
    cause     text NOT NULL,
    lost_at   timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE INDEX ON legacy.losses (tenant_id, event_id);

CREATE INDEX ON legacy.losses (lost_at);

-- The configuration of the legacy pipeline: where the mirror sends, and how its output is compared.
CREATE TABLE control.legacy_target (
    only_row         boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    -- NULL: nothing is sent, and mirrored events count as lost at stage mirror.
    forward_url      text,
    headers          jsonb NOT NULL DEFAULT '{}',
    -- Retries of requests that it answered with 429 or 5xx. Events that it may have taken are never sent again.
    retries          integer NOT NULL DEFAULT 0 CHECK (retries BETWEEN 0 AND 10),
    timeout_s        double precision NOT NULL DEFAULT 5 CHECK (timeout_s > 0),
    requests_at_once integer NOT NULL DEFAULT 32 CHECK (requests_at_once BETWEEN 1 AND 1000),
    -- Batches that wait longer are given up, so that an outage of the legacy pipeline for days does not fill the disk.
    give_up_s        double precision NOT NULL DEFAULT 3600 CHECK (give_up_s > 0),
    -- How long after the last mirrored batch it may still deliver.
    settle_s         double precision NOT NULL DEFAULT 300 CHECK (settle_s >= 0),
    -- Columns of legacy.output whose values are compared.
    compared         text[] NOT NULL DEFAULT ARRAY['type', 'name', 'user_id', 'anonymous_id', 'properties', 'traits', 'context'],
    -- The user's own table behind legacy.output. NULL: legacy.events.
    output_table     text,
    configured_at    timestamptz NOT NULL DEFAULT clock_timestamp()
);

INSERT INTO control.legacy_target DEFAULT VALUES;

-- The keys that authorize a tenant's requests to the legacy pipeline.
CREATE TABLE control.legacy_keys (
    tenant_id integer PRIMARY KEY REFERENCES control.tenants,
    write_key text NOT NULL
);

-- The results of comparing the legacy pipeline's output with the platform's, by window of received_at. Reconciling a
-- window again replaces its results.
CREATE SCHEMA reconcile;

CREATE TABLE reconcile.windows (
    window_start  timestamptz NOT NULL,
    window_end    timestamptz NOT NULL CHECK (window_end > window_start),
    reconciled_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- Both sides have delivered everything that they will deliver. The numbers are final.
    is_settled    boolean NOT NULL,
    seconds       double precision NOT NULL,
    -- What was compared and what could not be: events in flight, waiting for the mirror, dead letters.
    coverage      jsonb NOT NULL,
    PRIMARY KEY (window_start, window_end)
);

-- Numbers of identities. Only duplicates are numbers of further rows.
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

-- Each event that differs. An event that is dropped and not recovered has two rows: dropped and missing.
CREATE TABLE reconcile.differences (
    window_start timestamptz NOT NULL,
    window_end   timestamptz NOT NULL,
    tenant_id    integer NOT NULL,
    event_id     uuid NOT NULL,
    kind         text NOT NULL CHECK (kind IN ('dropped', 'extra', 'missing', 'mismatched')),
    -- Where a dropped or missing event was lost: the stage that reported it, or 'unreported'. Of an extra event: its
    -- outcome on the platform.
    stage        text,
    -- The names of the fields that differ, down to properties.<key>.
    fields       jsonb,
    -- The type and length of both values by field, never a value.
    samples      jsonb,
    PRIMARY KEY (tenant_id, window_start, window_end, kind, event_id)
);

CREATE INDEX ON reconcile.differences (window_start, window_end);

-- Recovery: events that the legacy pipeline dropped while it was production are moved from shadow.events into
-- production.
CREATE SCHEMA recovery;

CREATE TABLE recovery.runs (
    recovery_id  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    window_start timestamptz NOT NULL,
    window_end   timestamptz NOT NULL CHECK (window_end > window_start),
    actor        text NOT NULL DEFAULT current_user,
    reason       text NOT NULL,
    started_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- NULL: it runs, or was killed. The next run over its window continues where it ended.
    finished_at  timestamptz
);

-- The numbers of moved events, written by the transaction that moved them.
CREATE TABLE recovery.moves (
    recovery_id bigint NOT NULL REFERENCES recovery.runs,
    tenant_id   integer NOT NULL,
    hour        timestamptz NOT NULL CHECK (hour = date_trunc('hour', hour, 'UTC')),
    events      bigint NOT NULL,
    moved_at    timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE INDEX ON recovery.moves (recovery_id);

-- Erasure: the content of a person's events is removed everywhere. Their number and a tombstone are kept.
CREATE TABLE control.erasures (
    erasure_id   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id    integer NOT NULL REFERENCES control.tenants,
    -- control.id_hash of the user id that was named. The id itself is not stored.
    subject_hash bytea NOT NULL CHECK (octet_length(subject_hash) = 32),
    reason       text NOT NULL CHECK (reason <> ''),
    actor        text NOT NULL,
    -- Events received before are erased. Later events of the person are accepted like any others.
    erased_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- NULL: it was interrupted. The same command continues it.
    finished_at  timestamptz,
    counts       jsonb NOT NULL DEFAULT '{}'
);

CREATE UNIQUE INDEX one_unfinished_erasure_a_person ON control.erasures (tenant_id, subject_hash)
    WHERE finished_at IS NULL;

-- The hash of every id of the person. Everything that brings old events in again must leave these out.
CREATE TABLE control.tombstones (
    tenant_id  integer NOT NULL REFERENCES control.tenants,
    kind       text NOT NULL CHECK (kind IN ('user', 'anonymous')),
    id_hash    bytea NOT NULL CHECK (octet_length(id_hash) = 32),
    erased_at  timestamptz NOT NULL,
    erasure_id bigint NOT NULL REFERENCES control.erasures,
    PRIMARY KEY (tenant_id, kind, id_hash)
);

-- Every accepted event that was erased, by its place in the queue, so that the account can still be recounted. Its
-- identity stays in analytics.keys, so a resend is a duplicate.
CREATE TABLE control.erased_events (
    tenant_id         integer NOT NULL,
    batch_id          bigint NOT NULL,
    -- -1: a delivered event whose batch was dropped before.
    event_index       integer NOT NULL CHECK (event_index >= -1),
    event_id          uuid NOT NULL,
    batch_received_at timestamptz NOT NULL,
    -- The state of the event at the erasure. delivered and dead_lettered count as discarded from then on, in_flight
    -- once a worker has read it. The others keep their state.
    was               text NOT NULL CHECK (was IN ('delivered', 'dead_lettered', 'in_flight', 'duplicate', 'discarded')),
    erasure_id        bigint NOT NULL REFERENCES control.erasures,
    PRIMARY KEY (tenant_id, batch_id, event_index, event_id)
);

CREATE INDEX ON control.erased_events (tenant_id, event_id);

CREATE INDEX ON control.erased_events (batch_received_at);

CREATE INDEX ON control.erased_events (erasure_id);

-- Replay: retained events are processed again, first beside production (diff), then into it (commit), and back (undo).
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
    -- Add the rows that production lacks, and change no others.
    only_missing   boolean NOT NULL DEFAULT false,
    state          replay.state NOT NULL DEFAULT 'planned',
    is_paused      boolean NOT NULL DEFAULT false,
    -- A commit also replaces rows that changed in production since the diff.
    takes_newer    boolean NOT NULL DEFAULT false,
    planned_events bigint NOT NULL,
    -- Versions of the transform: those that may have made production's rows, and the diff's.
    transform_from text[] NOT NULL DEFAULT '{}',
    transform_to   text,
    actor          text NOT NULL,
    reason         text NOT NULL CHECK (reason <> ''),
    created_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- When the step under way began, for its rate.
    step_began_at  timestamptz,
    diffed_at      timestamptz,
    committed_at   timestamptz,
    undone_at      timestamptz,
    -- When its before-images were deleted. It cannot be undone since then.
    pruned_at      timestamptz,
    -- A replay proves that it read everything that it judges. It keeps its hours while it reads them.
    paused_because text
);

-- The ledger of chunks: neighbouring batches of one hour, some thousand events. A chunk that is done stays done. One
-- chunk per hour is a sweep: it searches rows in production without an accepted event.
CREATE TABLE replay.chunks (
    replay_id    bigint NOT NULL REFERENCES replay.replays,
    chunk        integer NOT NULL,
    hour         timestamptz NOT NULL,
    is_sweep     boolean NOT NULL,
    first_batch  bigint NOT NULL,
    last_batch   bigint NOT NULL,
    events       bigint NOT NULL,
    -- Whether it is done in the step under way.
    is_done      boolean NOT NULL DEFAULT false,
    -- Counted before the work, so that a chunk that repeatedly kills its workers pauses its replay.
    attempts     smallint NOT NULL DEFAULT 0,
    -- The backend that works on it. The chunk is free again when that backend has ended.
    taken_by     integer,
    taken_since  timestamptz,
    diffed_at    timestamptz,
    committed_at timestamptz,
    undone_at    timestamptz,
    -- The number of events that the diff found in the chunk's batches, whether the replay wants them or not. NULL: not
    -- yet read.
    read_events  bigint,
    -- At the commit of added rows: no batch with a lower id was processed later. NULL: unknown.
    seen_batches bigint,
    PRIMARY KEY (replay_id, chunk)
);

CREATE INDEX chunks_to_do ON replay.chunks (replay_id, chunk) WHERE NOT is_done;

CREATE INDEX ON replay.chunks (hour);

-- The numbers of a chunk's diff, by tenant.
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
    -- Discarded by an operator or erased. They are never added again.
    discarded bigint NOT NULL DEFAULT 0,
    -- No row can be made of it.
    failed    bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (replay_id, chunk, tenant_id)
);

CREATE INDEX ON replay.counts (hour);

CREATE TYPE replay.action AS ENUM ('added', 'changed', 'removed');

-- The rows that the diff would write, as JSON. Only rows that differ are stored.
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

-- Before-images: the earlier row as JSON, or NULL if there was none.
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
    -- Not undone: since the commit the event was delivered or sent again, or its person was erased.
    kept_newer boolean NOT NULL DEFAULT false,
    PRIMARY KEY (replay_id, tenant_id, event_id)
);

CREATE INDEX ON replay.before_images (replay_id, chunk);

-- The limits of a lane, which can be changed at run time. Without a row the settings apply.
CREATE TABLE control.lane_limits (
    lane  queue.lane PRIMARY KEY,
    share double precision NOT NULL CHECK (share > 0 AND share <= 1),
    cap   double precision NOT NULL CHECK (cap > 0 AND cap <= 1 AND cap >= share)
);

-- The versions of the transform, and since when each is in use.
CREATE TABLE control.transforms (
    since   timestamptz PRIMARY KEY DEFAULT clock_timestamp(),
    version text NOT NULL
);

-- Archives: an hour's batches as one Parquet file, written and verified before the hour is dropped.
CREATE TABLE control.archives (
    hour        timestamptz PRIMARY KEY CHECK (hour = date_trunc('hour', hour, 'UTC')),
    -- The address of the file, as fsspec reads it.
    address     text NOT NULL,
    events      bigint NOT NULL CHECK (events >= 0),
    bytes       bigint NOT NULL,
    -- SHA-256 of the file.
    sha256      text NOT NULL CHECK (length(sha256) = 64),
    -- queue.hours.seals when the archive was made. An hour that an import opened since then no longer counts as
    -- archived.
    seals       integer NOT NULL,
    archived_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- When the file was last read back and found correct.
    verified_at timestamptz NOT NULL,
    restored_at timestamptz
);

-- The circuit: workers stop claiming work while most of it would become dead letters, as after a bad deploy. Accepted
-- events wait meanwhile.
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

-- The state of each channel.
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

-- A number that should change, and since when it has not.
CREATE TABLE control.alert_marks (
    name  text PRIMARY KEY,
    value bigint NOT NULL,
    since timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- The last ticks of Dagster's sensors and schedules, as one of the sensors reports them.
CREATE TABLE control.sensor_ticks (
    name        text PRIMARY KEY,
    -- How often it should tick. NULL: it is a schedule.
    interval_s  double precision,
    ticked_at   timestamptz,
    error       text,
    reported_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE INDEX exhausted_dead_letters ON queue.dead_letters (tenant_id, fingerprint) WHERE state = 'exhausted';

CREATE INDEX drifting_results ON reconcile.results (tenant_id) WHERE missing + extra + mismatched > 0;

-- What metrics read: sums that only grow, at a cost that does not depend on the number of hours, and the latency of
-- deliveries.

-- Counted once and never subtracted: an erased event, or a dead letter that is delivered later, stays in the sums
-- (account.counters subtracts it). Only in_flight can decrease.
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

-- Written by the transaction that delivers, like account.deltas. Only events that are delivered at once are counted,
-- and no imports.
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

-- What dashboards read: events by tenant, hour, type and name. The tables below keep it correct after any change of the
-- rows.

-- The numbers add up over any column. `hour` is of occurred_at, which users ask for. received_hour is of received_at.
-- It is one range of the rows' primary key, so that a cell can be counted again without reading other rows.
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

-- The tenants and hours of received_at whose rows have changed. Each transaction that changes rows appends its own
-- mark, even if there is one already. So its changes are visible exactly when its mark is visible.
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

-- The key that signs cached look-ups. Any value in Redis without a valid signature is a miss. A forger would have to
-- read this table.
CREATE TABLE control.cache_key (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    key      bytea NOT NULL CHECK (octet_length(key) = 32)
);

INSERT INTO control.cache_key (key) VALUES (uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()));

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

-- A commit that proves that commits work. Each kind of prober has one row, which it updates repeatedly.
CREATE TABLE control.commit_probes (
    prober text PRIMARY KEY CHECK (prober <> ''),
    committed_at timestamptz NOT NULL
) WITH (fillfactor = 50);

-- The legacy pipeline's output, as comparisons and production read it. It is replaced if the output is a table of the
-- user's own.
CREATE VIEW legacy.output AS
SELECT tenant_id, event_id, message_id, type, name, user_id, anonymous_id, group_id, previous_id, occurred_at,
       arrived_at AS received_at, delivered_at, properties, traits, context, digest
FROM legacy.events;
