-- A commit that proves that commits work: one row for each kind of prober, written again and again.
CREATE TABLE control.commit_probes (
    prober text PRIMARY KEY CHECK (prober <> ''),
    committed_at timestamptz NOT NULL
) WITH (fillfactor = 50);
