-- The number of different people (user id, else anonymous id) in each hour of occurred_at, and in the whole window
-- (hour NULL). They are counted from the rows, because such numbers do not add up. The roll-ups only tell which hours
-- of received_at hold the rows. The result is exact for what is rolled up.
CREATE OR REPLACE FUNCTION analytics.people(a_tenant integer, from_at timestamptz, to_at timestamptz)
RETURNS TABLE (hour timestamptz, people bigint) LANGUAGE sql STABLE AS $$
    SELECT date_trunc('hour', e.occurred_at, 'UTC'),
           count(DISTINCT CASE WHEN e.user_id IS NOT NULL THEN 'u' || e.user_id ELSE 'a' || e.anonymous_id END)
    FROM (SELECT DISTINCT received_hour FROM analytics.rollups AS r
          WHERE r.tenant_id = a_tenant AND r.hour >= date_trunc('hour', from_at, 'UTC') AND r.hour < to_at) AS h
    CROSS JOIN LATERAL (
        SELECT occurred_at, user_id, anonymous_id FROM analytics.events AS own
        WHERE own.tenant_id = a_tenant AND own.received_at >= h.received_hour
          AND own.received_at < h.received_hour + interval '1 hour'
          AND own.occurred_at >= from_at AND own.occurred_at < to_at OFFSET 0) AS e
    GROUP BY GROUPING SETS ((date_trunc('hour', e.occurred_at, 'UTC')), ())
$$;
