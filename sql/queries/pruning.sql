-- name: rejected
-- Prunes old rejected events.
SELECT queue.prune_rejected(clock_timestamp() - make_interval(days => %(days)s) - queue.unwatched_since('-infinity'), %(rows_max)s)

-- name: discarded
-- Prunes old discarded dead letters.
SELECT queue.prune_discarded(clock_timestamp() - make_interval(days => %(days)s) - queue.unwatched_since('-infinity'), %(rows_max)s)
