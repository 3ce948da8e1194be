-- Who may send, what is known of them, and what operators did.
CREATE SCHEMA control;

CREATE TABLE control.tenants (
    tenant_id    integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name         text NOT NULL UNIQUE CHECK (length(name) BETWEEN 1 AND 200),
    plan         text NOT NULL DEFAULT 'free',
    -- Events a second before a tenant's events wait in the overflow lane; NULL: the setting tenant_events_per_s.
    events_per_s integer CHECK (events_per_s > 0),
    created_at   timestamptz NOT NULL DEFAULT now()
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
    resolved_at  timestamptz
);
CREATE UNIQUE INDEX one_open_alert_a_cause ON control.alerts (kind, fingerprint) WHERE resolved_at IS NULL;

CREATE TABLE control.audit_log (
    entry_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at       timestamptz NOT NULL DEFAULT now(),
    actor    text NOT NULL DEFAULT current_user,
    action   text NOT NULL,
    reason   text NOT NULL,
    detail   jsonb NOT NULL DEFAULT '{}'
);
