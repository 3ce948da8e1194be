-- The account by tenant, hour and lane: the sum of counters and deltas.
CREATE OR REPLACE VIEW account.funnel AS
SELECT tenant_id, hour, lane,
       sum(received)::bigint AS received, sum(accepted)::bigint AS accepted, sum(rejected)::bigint AS rejected,
       sum(claimed)::bigint AS claimed, sum(enriched)::bigint AS enriched, sum(delivered)::bigint AS delivered,
       sum(duplicate)::bigint AS duplicate, sum(dead_lettered)::bigint AS dead_lettered,
       sum(discarded)::bigint AS discarded, sum(in_flight)::bigint AS in_flight
FROM (SELECT * FROM account.counters UNION ALL SELECT * FROM account.deltas) AS both_parts
GROUP BY tenant_id, hour, lane;
