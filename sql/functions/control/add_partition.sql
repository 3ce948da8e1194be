-- Creates a partition beside its parent and attaches it, which waits for no reader. PARTITION OF would wait for readers
-- of the parent, and the gateway would wait behind it.
CREATE OR REPLACE FUNCTION control.add_partition(parent regclass, part text, from_at timestamptz, to_at timestamptz)
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('CREATE TABLE %s (LIKE %s INCLUDING ALL)', part, parent);
    EXECUTE format('ALTER TABLE %s ATTACH PARTITION %s FOR VALUES FROM (%L) TO (%L)', parent, part, from_at, to_at);
END $$;
