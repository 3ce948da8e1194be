-- name: rejected
SELECT queue.prune_rejected(clock_timestamp() - make_interval(days => %(days)s), %(rows_max)s)

-- name: discarded
SELECT queue.prune_discarded(clock_timestamp() - make_interval(days => %(days)s), %(rows_max)s)
