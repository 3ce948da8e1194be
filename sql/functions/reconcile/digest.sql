-- A 64-bit digest of an event: its identity and its compared columns. Equal events have equal digests. Two different
-- events have equal digests by chance once in 10^19. JSON is hashed as text, because PostgreSQL's own hash of jsonb
-- stays the same when two values 32 places apart are exchanged. Equal numbers that are written differently (1 and 1.0)
-- have different digests, so a caller that finds different digests compares the values. Every column has its own seed,
-- and the identity is mixed in last. So neither values exchanged between columns nor contents exchanged between events
-- cancel out.
CREATE OR REPLACE FUNCTION reconcile.digest(
    compared text[], tenant_id integer, event_id uuid, type text, name text, user_id text, anonymous_id text,
    group_id text, previous_id text, message_id text, occurred_at timestamptz, properties jsonb, traits jsonb,
    context jsonb
) RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN hashint8extended(
    CASE WHEN 'type' = ANY(compared) THEN coalesce(hashtextextended(type, 1), 1) ELSE 0 END
    # CASE WHEN 'name' = ANY(compared) THEN coalesce(hashtextextended(name, 2), 2) ELSE 0 END
    # CASE WHEN 'user_id' = ANY(compared) THEN coalesce(hashtextextended(user_id, 3), 3) ELSE 0 END
    # CASE WHEN 'anonymous_id' = ANY(compared) THEN coalesce(hashtextextended(anonymous_id, 4), 4) ELSE 0 END
    # CASE WHEN 'group_id' = ANY(compared) THEN coalesce(hashtextextended(group_id, 5), 5) ELSE 0 END
    # CASE WHEN 'previous_id' = ANY(compared) THEN coalesce(hashtextextended(previous_id, 6), 6) ELSE 0 END
    # CASE WHEN 'message_id' = ANY(compared) THEN coalesce(hashtextextended(message_id, 7), 7) ELSE 0 END
    # CASE WHEN 'occurred_at' = ANY(compared) THEN coalesce(timestamp_hash_extended(occurred_at AT TIME ZONE 'UTC', 8), 8)
           ELSE 0 END
    # CASE WHEN 'properties' = ANY(compared) THEN coalesce(hashtextextended(properties::text, 9), 9) ELSE 0 END
    # CASE WHEN 'traits' = ANY(compared) THEN coalesce(hashtextextended(traits::text, 10), 10) ELSE 0 END
    # CASE WHEN 'context' = ANY(compared) THEN coalesce(hashtextextended(context::text, 11), 11) ELSE 0 END,
    uuid_hash_extended(event_id, tenant_id));
