-- Erasure: what a person's events said is removed everywhere; what is kept is that there were events, and a tombstone.
CREATE TABLE control.erasures (
    erasure_id   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id    integer NOT NULL REFERENCES control.tenants,
    -- control.id_hash of the user id that was named: the id itself is kept nowhere.
    subject_hash bytea NOT NULL CHECK (octet_length(subject_hash) = 32),
    reason       text NOT NULL CHECK (reason <> ''),
    actor        text NOT NULL DEFAULT current_user,
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

-- SHA-256; the tenant is part of it, so that nobody learns from two hashes that two tenants know the same person.
CREATE FUNCTION control.id_hash(a_tenant integer, an_id text) RETURNS bytea
LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN sha256(convert_to(a_tenant || ':' || an_id, 'UTF8'));

-- Whether an event of these ids is of a person who is known by those. An anonymous id counts only where nobody was logged
-- in: a device may have another user now.
CREATE FUNCTION control.is_theirs(
    a_user_id text, an_anonymous_id text, a_previous_id text, users text[], anonymous text[]
) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN coalesce(a_user_id = ANY(users), false) OR coalesce(a_previous_id = ANY(users || anonymous), false)
       OR (a_user_id IS NULL AND coalesce(an_anonymous_id = ANY(anonymous), false));

-- The key of the lock that an erasure takes exclusively while it changes a batch and what became of it. Whoever writes
-- rows from batches without holding their work (replay, recovery) holds it shared, from a statement before it reads.
CREATE FUNCTION control.erasure_lock() RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN 1::bigint << 42;
