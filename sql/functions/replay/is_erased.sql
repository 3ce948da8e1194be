-- Whether an event was erased, or is of a person who was erased after it was received. As in control.is_theirs, an
-- anonymous id counts only if no user was logged in.
CREATE OR REPLACE FUNCTION replay.is_erased(a_tenant integer, an_event uuid, a_received_at timestamptz, a_row jsonb)
RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT EXISTS (SELECT FROM control.erased_events WHERE tenant_id = a_tenant AND event_id = an_event)
        OR EXISTS (
            SELECT FROM (VALUES ('user', a_row ->> 'user_id'), ('user', a_row ->> 'previous_id'),
                                ('anonymous', a_row ->> 'previous_id'),
                                ('anonymous', CASE WHEN control.known_id(a_row ->> 'user_id') IS NULL THEN a_row ->> 'anonymous_id' END))
                AS id(kind, value)
            JOIN control.tombstones AS t
              ON t.tenant_id = a_tenant AND t.kind = id.kind AND t.id_hash = control.id_hash(a_tenant, id.value)
            WHERE a_received_at < t.erased_at)
$$;
