-- The transactions that write a table. A row is inserted under ROW EXCLUSIVE. That lock is taken before the row's id is
-- drawn. It is released after the row is visible to others, however long the commit takes.
CREATE OR REPLACE FUNCTION queue.writers_of(a_table regclass) RETURNS SETOF text LANGUAGE sql VOLATILE AS $$
    SELECT virtualtransaction FROM pg_locks
    WHERE locktype = 'relation' AND mode = 'RowExclusiveLock' AND granted AND relation = a_table
      AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
$$;
