-- The columns of legacy.output that a kept digest covers: those that are compared by default.
-- A comparison of millions of rows reads a digest of 64 bits per row. It is kept with the row if possible, and computed
-- otherwise.
CREATE OR REPLACE FUNCTION reconcile.kept_columns() RETURNS text[] LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN ARRAY['type', 'name', 'user_id', 'anonymous_id', 'properties', 'traits', 'context'];
