-- Whether an event with these ids is of a person who is known by those ids. An anonymous id counts only if no user was
-- logged in, because a device may have another user now. A blank user id is no user.
CREATE OR REPLACE FUNCTION control.is_theirs(
    a_user_id text, an_anonymous_id text, a_previous_id text, users text[], anonymous text[]
) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN coalesce(a_user_id = ANY(users), false) OR coalesce(a_previous_id = ANY(users || anonymous), false)
       OR (coalesce(btrim(a_user_id, E' \t\r\n'), '') = '' AND coalesce(an_anonymous_id = ANY(anonymous), false));
