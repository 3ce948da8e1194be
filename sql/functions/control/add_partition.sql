-- Made beside its parent and attached, which waits for nobody: as PARTITION OF it would wait for whoever reads the
-- parent, and the gateway behind it.
CREATE OR REPLACE FUNCTION control.add_partition(parent regclass, part text, from_at timestamptz, to_at timestamptz)
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('CREATE TABLE %s (LIKE %s INCLUDING ALL)', part, parent);
    EXECUTE format('ALTER TABLE %s ATTACH PARTITION %s FOR VALUES FROM (%L) TO (%L)', parent, part, from_at, to_at);
END $$;
