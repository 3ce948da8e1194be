-- Clients send "" where nobody is logged in. Blank ids name nobody.
CREATE FUNCTION control.known_id(an_id text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN nullif(btrim(an_id, E' \t\r\n'), '');

-- Whether an event of these ids is of a person who is known by those. An anonymous id counts only where nobody was logged
-- in: a device may have another user now. A blank user id is nobody.
CREATE OR REPLACE FUNCTION control.is_theirs(
    a_user_id text, an_anonymous_id text, a_previous_id text, users text[], anonymous text[]
) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN coalesce(a_user_id = ANY(users), false) OR coalesce(a_previous_id = ANY(users || anonymous), false)
       OR (coalesce(btrim(a_user_id, E' \t\r\n'), '') = '' AND coalesce(an_anonymous_id = ANY(anonymous), false));

-- Who acted is always said: the database's role is nobody.
ALTER TABLE control.audit_log ALTER COLUMN actor DROP DEFAULT;
ALTER TABLE control.erasures ALTER COLUMN actor DROP DEFAULT;
