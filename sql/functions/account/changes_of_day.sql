-- PostgreSQL's statistics of all changes to a day's rows, from any source: tables, their files, and rows inserted,
-- updated and deleted since the statistics were lost or reset. Two equal results mean that no reported change happened
-- between them. A change is reported within a minute. NULL: nothing is known.
CREATE OR REPLACE FUNCTION account.changes_of_day(a_day timestamptz) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT string_agg(concat_ws('/', c.oid, c.relfilenode, s.n_tup_ins, s.n_tup_upd, s.n_tup_del), ' ' ORDER BY c.oid)
           || ' ' || (SELECT coalesce(stats_reset::text, '') FROM pg_stat_wal)
    FROM unnest(ARRAY['analytics', 'shadow']) AS a_schema
    JOIN pg_class AS c ON c.oid = to_regclass(a_schema || '.events_' || to_char(a_day AT TIME ZONE 'UTC', 'YYYYMMDD'))
    JOIN pg_stat_all_tables AS s ON s.relid = c.oid
    WHERE current_setting('track_counts')::boolean
$$;
