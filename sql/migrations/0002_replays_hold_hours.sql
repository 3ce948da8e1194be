-- The highest id of the batches that were dropped with the hour. NULL: dropped by a version that did not record it, or
-- not dropped.
ALTER TABLE queue.hours ADD COLUMN last_batch bigint;

-- Replaced by replay.prune(interval, integer), which deletes in portions.
DROP FUNCTION IF EXISTS replay.prune(interval);
