-- name: unknown
-- Message ids in the user's own table whose identity is not stored yet. Without such a table nothing is read.
SELECT message_id FROM legacy.output
WHERE (SELECT output_table IS NOT NULL FROM control.legacy_target)
  AND event_id IS NULL AND message_id IS NOT NULL
  AND (%(since)s::timestamptz IS NULL OR received_at >= %(since)s OR received_at IS NULL)

-- name: store
-- Stores identities by the hash of the message id.
INSERT INTO legacy.identities (message_hash, event_id)
SELECT * FROM unnest(%s::bytea[], %s::uuid[]) ON CONFLICT DO NOTHING
