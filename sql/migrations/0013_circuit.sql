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
