-- Hours of a replay whose batches hold less than was planned, for unfinished chunks or for all. An hour that is
-- searched for rows to remove must hold all accepted events.
CREATE OR REPLACE FUNCTION replay.unreadable_hours(a_replay bigint, all_chunks boolean)
RETURNS TABLE (hour timestamptz, planned bigint, kept bigint) LANGUAGE sql STABLE AS $$
    SELECT need.hour, greatest(need.planned, found.kept + lost.events), found.kept
    FROM (SELECT c.hour, sum(c.events) FILTER (WHERE NOT c.is_sweep)::bigint AS planned, bool_or(c.is_sweep) AS is_swept
          FROM replay.chunks AS c
          WHERE c.replay_id = a_replay AND (all_chunks OR EXISTS (
              SELECT FROM replay.chunks AS o WHERE o.replay_id = a_replay AND o.hour = c.hour AND NOT o.is_done))
          GROUP BY c.hour) AS own
    CROSS JOIN LATERAL (SELECT own.hour, coalesce(own.planned, 0) AS planned, own.is_swept) AS need
    JOIN replay.replays AS r ON r.replay_id = a_replay
    CROSS JOIN LATERAL (
        SELECT coalesce(sum(b.events), 0)::bigint AS kept FROM queue.batches AS b
        WHERE b.received_at >= need.hour AND b.received_at < need.hour + interval '1 hour'
          AND (r.tenant_ids IS NULL OR b.tenant_ids && r.tenant_ids)) AS found
    CROSS JOIN LATERAL (
        SELECT CASE WHEN need.is_swept THEN replay.missing_events(need.hour) ELSE 0 END AS events) AS lost
    LEFT JOIN queue.hours AS h ON h.hour = need.hour
    WHERE found.kept < need.planned OR lost.events <> 0 OR h.dropped_at IS NOT NULL
    ORDER BY need.hour
$$;
