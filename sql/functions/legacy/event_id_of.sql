-- The identity of a messageId in a table of the user's own: the UUID itself, else its stored UUIDv5 (RFC 9562). NULL if
-- that is not stored yet.
CREATE OR REPLACE FUNCTION legacy.event_id_of(message_id text) RETURNS uuid LANGUAGE plpgsql STABLE STRICT PARALLEL SAFE AS $$
BEGIN
    IF message_id ~ '^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$' THEN
        RETURN message_id::uuid;
    END IF;
    RETURN (SELECT i.event_id FROM legacy.identities AS i
            WHERE i.message_hash = sha256(convert_to(event_id_of.message_id, 'UTF8')));
END $$;
