-- Computes the kept digest of a row again.
CREATE OR REPLACE FUNCTION reconcile.keep_digest() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.digest := reconcile.digest(
        reconcile.kept_columns(), NEW.tenant_id, NEW.event_id, NEW.type, NEW.name, NEW.user_id, NEW.anonymous_id,
        NEW.group_id, NEW.previous_id, NEW.message_id, NEW.occurred_at, NEW.properties, NEW.traits, NEW.context);
    RETURN NEW;
END $$;

-- Any change of a row updates its digest. For inserts the worker computes the digests of a whole load at once.
CREATE OR REPLACE TRIGGER keep_digest
BEFORE UPDATE OF tenant_id, event_id, type, name, user_id, anonymous_id, properties, traits, context, digest
ON analytics.events FOR EACH ROW EXECUTE FUNCTION reconcile.keep_digest();

CREATE OR REPLACE TRIGGER keep_digest
BEFORE UPDATE OF tenant_id, event_id, type, name, user_id, anonymous_id, properties, traits, context, digest
ON shadow.events FOR EACH ROW EXECUTE FUNCTION reconcile.keep_digest();

CREATE OR REPLACE TRIGGER keep_digest BEFORE INSERT OR UPDATE ON legacy.events
FOR EACH ROW EXECUTE FUNCTION reconcile.keep_digest();
