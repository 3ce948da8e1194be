-- The latency histogram by lane: the sum of folded counts and deltas.
CREATE OR REPLACE VIEW account.latency AS
SELECT lane, bucket, sum(events)::bigint AS events, sum(seconds) AS seconds
FROM (SELECT * FROM account.latencies UNION ALL SELECT * FROM account.latency_deltas) AS both_parts
GROUP BY lane, bucket;
