-- The id without surrounding white space, or NULL if it is blank. Clients send "" if no user is logged in.
CREATE OR REPLACE FUNCTION control.known_id(an_id text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN nullif(btrim(an_id, E' \t\r\n'), '');
