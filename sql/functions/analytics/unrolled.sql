-- Tenants and hours whose rows may not be rolled up yet.
CREATE OR REPLACE VIEW analytics.unrolled AS
SELECT tenant_id, received_hour FROM analytics.rollup_marks
UNION
SELECT tenant_id, hour FROM account.deltas WHERE delivered <> 0;
