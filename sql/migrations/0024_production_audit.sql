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

-- What PostgreSQL knows of all changes to a day's rows, whoever made them: tables, their files, and rows inserted, updated
-- and deleted since the statistics were lost or reset. Equal twice: nothing that was reported changed between; a change is
-- reported within a minute. NULL: nothing is known.
CREATE FUNCTION account.changes_of_day(a_day timestamptz) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT string_agg(concat_ws('/', c.oid, c.relfilenode, s.n_tup_ins, s.n_tup_upd, s.n_tup_del), ' ' ORDER BY c.oid)
           || ' ' || (SELECT coalesce(stats_reset::text, '') FROM pg_stat_wal)
    FROM unnest(ARRAY['analytics', 'shadow']) AS a_schema
    JOIN pg_class AS c ON c.oid = to_regclass(a_schema || '.events_' || to_char(a_day AT TIME ZONE 'UTC', 'YYYYMMDD'))
    JOIN pg_stat_all_tables AS s ON s.relid = c.oid
    WHERE current_setting('track_counts')::boolean
$$;
