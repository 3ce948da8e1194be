-- The values that differ between two contents, by name. JSON objects are compared key by key. An absent value is NULL.
CREATE OR REPLACE FUNCTION reconcile.differing_fields(compared text[], ours jsonb, theirs jsonb)
RETURNS TABLE (field text, our_value jsonb, their_value jsonb) LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC
    SELECT c.name || coalesce('.' || k.key, ''), k.ours, k.theirs
    FROM unnest(compared) AS c(name)
    CROSS JOIN LATERAL (SELECT nullif(ours -> c.name, 'null') AS ours, nullif(theirs -> c.name, 'null') AS theirs) AS v
    CROSS JOIN LATERAL (
        SELECT NULL AS key, v.ours, v.theirs
        WHERE jsonb_typeof(coalesce(v.ours, '{}')) <> 'object' OR jsonb_typeof(coalesce(v.theirs, '{}')) <> 'object'
              OR coalesce(v.ours, '{}') = coalesce(v.theirs, '{}')
        UNION ALL
        SELECT coalesce(o.key, t.key), o.value, t.value
        FROM jsonb_each(CASE jsonb_typeof(v.ours) WHEN 'object' THEN v.ours ELSE '{}' END) AS o
        FULL JOIN jsonb_each(CASE jsonb_typeof(v.theirs) WHEN 'object' THEN v.theirs ELSE '{}' END) AS t USING (key)
        WHERE jsonb_typeof(coalesce(v.ours, '{}')) = 'object' AND jsonb_typeof(coalesce(v.theirs, '{}')) = 'object'
    ) AS k
    WHERE k.ours IS DISTINCT FROM k.theirs;
END;
