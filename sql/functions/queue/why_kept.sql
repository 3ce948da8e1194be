-- Why an hour cannot be dropped yet. NULL: it can be dropped. A replay keeps its hours from the begin of its diff to
-- the end of its commit, unless it is cancelled or pruned. A plan keeps no hours: its diff is refused if they are gone.
CREATE OR REPLACE FUNCTION queue.why_kept(an_hour timestamptz, retention interval) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT coalesce(
        (SELECT format('was not sealed %s ago', retention) FROM queue.hours
         WHERE hour = an_hour AND (sealed_at IS NULL OR sealed_at + retention > clock_timestamp())),
        (SELECT format('still has %s pieces of work', count(*)) FROM queue.work
         WHERE received_at >= an_hour AND received_at < an_hour + interval '1 hour' HAVING count(*) > 0),
        (SELECT format('still has %s batches for the mirror', count(*)) FROM queue.mirror
         WHERE received_at >= an_hour AND received_at < an_hour + interval '1 hour' HAVING count(*) > 0),
        (SELECT format('is needed by replay %s', r.replay_id)
         FROM replay.replays AS r
         WHERE r.state IN ('diffing', 'diffed', 'committing') AND r.pruned_at IS NULL
           AND EXISTS (SELECT FROM replay.chunks AS c WHERE c.replay_id = r.replay_id AND c.hour = an_hour)
         ORDER BY r.replay_id LIMIT 1))
$$;
