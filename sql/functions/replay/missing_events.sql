-- The number of accepted events of an hour that its batches do not hold. 0: all are kept.
CREATE OR REPLACE FUNCTION replay.missing_events(an_hour timestamptz) RETURNS bigint LANGUAGE sql STABLE AS $$
    SELECT coalesce((SELECT sum(accepted) FROM account.funnel WHERE hour = an_hour AND lane <> 'replay'), 0)::bigint
           - coalesce((SELECT sum(events) FROM queue.batches
                       WHERE received_at >= an_hour AND received_at < an_hour + interval '1 hour'), 0)::bigint
$$;
