-- name: forward_to_simulation
-- It settles within the visibility time-out of its queue.
UPDATE control.legacy_target SET forward_url = %s, retries = 0, settle_s = 2, output_table = NULL
