-- The batches of imports into the hours from a time on. Their events were received long before the platform had them,
-- so they are left out of latencies.
CREATE OR REPLACE FUNCTION queue.imported_since(since timestamptz) RETURNS bigint[]
LANGUAGE sql STABLE PARALLEL SAFE
RETURN ARRAY(SELECT batch_id FROM control.import_chunks
             WHERE hour >= date_trunc('hour', since, 'UTC') AND batch_id IS NOT NULL);
