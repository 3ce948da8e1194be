-- Clients send "" where nobody is logged in. Blank ids name nobody.
CREATE OR REPLACE FUNCTION control.known_id(an_id text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN nullif(btrim(an_id, E' \t\r\n'), '');
