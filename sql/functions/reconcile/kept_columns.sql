-- Comparing millions of rows by 64 bits of each: kept with the row where it can be, computed where it is not.

-- The columns of legacy.output that a kept digest is of: those that are compared where nothing else is configured.
CREATE OR REPLACE FUNCTION reconcile.kept_columns() RETURNS text[] LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN ARRAY['type', 'name', 'user_id', 'anonymous_id', 'properties', 'traits', 'context'];
