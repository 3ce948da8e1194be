-- Marks roll-ups when deltas are folded. Loads make no marks: the account's delta is their mark until it is folded, and
-- the fold turns it into a mark.
CREATE OR REPLACE FUNCTION analytics.mark_folded() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO analytics.rollup_marks (tenant_id, received_hour)
    SELECT DISTINCT tenant_id, hour FROM folded WHERE delivered <> 0;
    RETURN NULL;
END $$;

CREATE OR REPLACE TRIGGER mark_rollups AFTER DELETE ON account.deltas REFERENCING OLD TABLE AS folded
FOR EACH STATEMENT EXECUTE FUNCTION analytics.mark_folded();
