-- The running totals of each tenant: the sum of folded totals and deltas. Only in_flight can decrease.
CREATE OR REPLACE VIEW account.running_totals AS
SELECT tenant_id,
       sum(received)::bigint AS received, sum(accepted)::bigint AS accepted, sum(rejected)::bigint AS rejected,
       sum(claimed)::bigint AS claimed, sum(enriched)::bigint AS enriched, sum(delivered)::bigint AS delivered,
       sum(duplicate)::bigint AS duplicate, sum(dead_lettered)::bigint AS dead_lettered,
       sum(discarded)::bigint AS discarded, sum(in_flight)::bigint AS in_flight
FROM (SELECT * FROM account.totals
      UNION ALL
      SELECT tenant_id, greatest(received, 0), greatest(accepted, 0), greatest(rejected, 0), greatest(claimed, 0),
             greatest(enriched, 0), greatest(delivered, 0), greatest(duplicate, 0), greatest(dead_lettered, 0),
             greatest(discarded, 0), in_flight
      FROM account.deltas) AS both_parts
GROUP BY tenant_id;
