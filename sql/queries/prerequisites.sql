-- name: server
-- The server's settings and the role's rights.
SELECT current_user::text AS role, current_database()::text AS database, current_setting('server_version') AS version,
       pg_is_in_recovery() OR current_setting('transaction_read_only') = 'on' AS is_read_only,
       current_setting('fsync') AS fsync, current_setting('full_page_writes') AS full_page_writes,
       has_database_privilege(current_database(), 'CREATE') AS may_create_schemas,
       coalesce(has_schema_privilege(to_regnamespace('public'), 'CREATE'), false) AS may_create_in_public,
       to_regclass('public.pipeline_migrations') IS NOT NULL AS is_migrated

-- name: connections
-- The number of connections that the role may open.
SELECT least(
    current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
        - coalesce(current_setting('reserved_connections', true)::int, 0),
    (SELECT nullif(rolconnlimit, -1) FROM pg_roles WHERE rolname = current_user),
    (SELECT nullif(datconnlimit, -1) FROM pg_database WHERE datname = current_database())) AS allowed

-- name: tables_of_others
-- The platform's tables that belong to other roles. Only the owner of a table can create its partitions.
SELECT n.nspname || '.' || c.relname AS name, c.relowner::regrole::text AS owner
FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname IN ('control', 'account', 'queue', 'analytics', 'shadow', 'legacy', 'reconcile', 'replay')
  AND c.relkind IN ('r', 'p') AND NOT pg_has_role(c.relowner, 'USAGE')
ORDER BY 1

-- name: prove_commit
-- Commits one row, to prove that commits work.
INSERT INTO control.commit_probes (prober, committed_at) VALUES (%s, clock_timestamp())
ON CONFLICT (prober) DO UPDATE SET committed_at = excluded.committed_at
