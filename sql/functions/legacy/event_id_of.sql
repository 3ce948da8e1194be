-- The identity of a messageId, as the gateway makes it: the UUID itself, else its UUIDv5 (RFC 9562) in our namespace.
CREATE OR REPLACE FUNCTION legacy.event_id_of(message_id text) RETURNS uuid LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    hash bytea;
BEGIN
    IF message_id ~ '^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$' THEN
        RETURN message_id::uuid;
    END IF;
    hash := substr(legacy.sha1('\x6f1f7c0e7a555b0c9d3e2f5f0d1d9a41'::bytea || convert_to(message_id, 'UTF8')), 1, 16);
    hash := set_byte(hash, 6, (get_byte(hash, 6) & 15) | 80);
    hash := set_byte(hash, 8, (get_byte(hash, 8) & 63) | 128);
    RETURN encode(hash, 'hex')::uuid;
END $$;
