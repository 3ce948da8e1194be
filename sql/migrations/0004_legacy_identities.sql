-- The identity of a messageId that is no UUID is a UUIDv5 of it, which PostgreSQL cannot compute without an extension.
-- The platform computes it for the rows of a table of the user's own and stores it here, by SHA-256 of the messageId.
CREATE TABLE legacy.identities (
    message_hash bytea PRIMARY KEY,
    event_id     uuid NOT NULL
);

-- legacy.event_id_of, which called it, is replaced after the migrations.
DROP FUNCTION IF EXISTS legacy.sha1(bytea);

DELETE FROM public.pipeline_functions WHERE name = 'legacy/sha1';
