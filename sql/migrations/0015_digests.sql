-- Comparing millions of rows by 64 bits of each: kept with the row where it can be, computed where it is not.

-- The columns of legacy.output that a kept digest is of: those that are compared where nothing else is configured.
CREATE FUNCTION reconcile.kept_columns() RETURNS text[] LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN ARRAY['type', 'name', 'user_id', 'anonymous_id', 'properties', 'traits', 'context'];

-- An event in 64 bits: its identity, and those of its columns that are compared. Equal events have equal bits; two that
-- differ have them by chance once in 10^19. JSON goes in as text: PostgreSQL's own hash of jsonb is the same when two
-- values 32 places apart are exchanged. Numbers that are equal and written differently (1 and 1.0) differ here: whoever
-- finds different bits compares the values. Every column has a seed of its own, and the identity is mixed in last, so
-- that neither values exchanged between columns nor contents exchanged between events cancel out.
CREATE FUNCTION reconcile.digest(
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

-- Where an event belongs when rows are added up: its tenant and some bits of its identity's hash, in one number.
CREATE FUNCTION reconcile.place(tenant_id integer, event_id uuid, bits integer) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN tenant_id::bigint << bits | (uuid_hash_extended(event_id, 0) & ((1 << bits) - 1));

-- reconcile.digest of reconcile.kept_columns(); NULL: whoever compares computes it. A worker keeps it with the rows of
-- mirrored epochs only. Not a generated column: adding one would rewrite every day of analytics.events under a lock.
ALTER TABLE analytics.events ADD COLUMN digest bigint;
ALTER TABLE shadow.events ADD COLUMN digest bigint;
ALTER TABLE legacy.events ADD COLUMN digest bigint;

CREATE FUNCTION reconcile.keep_digest() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.digest := reconcile.digest(
        reconcile.kept_columns(), NEW.tenant_id, NEW.event_id, NEW.type, NEW.name, NEW.user_id, NEW.anonymous_id,
        NEW.group_id, NEW.previous_id, NEW.message_id, NEW.occurred_at, NEW.properties, NEW.traits, NEW.context);
    RETURN NEW;
END $$;
-- Whoever changes a row, its digest stays true. Inserts are the worker's, which computes it for a load at once.
CREATE TRIGGER keep_digest
BEFORE UPDATE OF tenant_id, event_id, type, name, user_id, anonymous_id, properties, traits, context, digest
ON analytics.events FOR EACH ROW EXECUTE FUNCTION reconcile.keep_digest();
CREATE TRIGGER keep_digest
BEFORE UPDATE OF tenant_id, event_id, type, name, user_id, anonymous_id, properties, traits, context, digest
ON shadow.events FOR EACH ROW EXECUTE FUNCTION reconcile.keep_digest();
CREATE TRIGGER keep_digest BEFORE INSERT OR UPDATE ON legacy.events
FOR EACH ROW EXECUTE FUNCTION reconcile.keep_digest();

CREATE OR REPLACE VIEW account.delivered AS
SELECT tenant_id, event_id, message_id, type, name, user_id, anonymous_id, group_id, previous_id, occurred_at, received_at,
       delivered_at, properties, traits, context, batch_id, epoch, recovery_id, false AS is_shadow, digest
FROM analytics.events
UNION ALL
SELECT tenant_id, event_id, message_id, type, name, user_id, anonymous_id, group_id, previous_id, occurred_at, received_at,
       delivered_at, properties, traits, context, batch_id, epoch, recovery_id, true, digest
FROM shadow.events;

-- A table of the user's own has no digests; what its view says of the other columns stays.
DO $$
BEGIN
    IF (SELECT output_table FROM control.legacy_target) IS NULL THEN
        CREATE OR REPLACE VIEW legacy.output AS
        SELECT tenant_id, event_id, message_id, type, name, user_id, anonymous_id, group_id, previous_id, occurred_at,
               arrived_at AS received_at, delivered_at, properties, traits, context, digest
        FROM legacy.events;
    ELSE
        EXECUTE format('CREATE OR REPLACE VIEW legacy.output AS SELECT own.*, NULL::bigint AS digest FROM (%s) AS own',
                       rtrim(pg_get_viewdef('legacy.output'::regclass), ';'));
    END IF;
END $$;

DROP FUNCTION reconcile.content;
