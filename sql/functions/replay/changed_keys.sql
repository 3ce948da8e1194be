-- The names of the keys that differ between two JSON objects, as `prefix.key`. Only `prefix` if one of them is no
-- object.
CREATE OR REPLACE FUNCTION replay.changed_keys(prefix text, one jsonb, other jsonb) RETURNS text[] LANGUAGE sql IMMUTABLE
RETURN CASE
    WHEN one IS NULL AND other IS NULL OR one::text = other::text THEN ARRAY[]::text[]
    WHEN coalesce(jsonb_typeof(one), 'object') <> 'object' OR coalesce(jsonb_typeof(other), 'object') <> 'object'
        THEN ARRAY[prefix]
    ELSE coalesce((SELECT array_agg(prefix || '.' || key ORDER BY key)
                   FROM jsonb_each(coalesce(one, '{}')) AS a(key, value)
                   FULL JOIN jsonb_each(coalesce(other, '{}')) AS b(key, value) USING (key)
                   WHERE a.value::text IS DISTINCT FROM b.value::text), ARRAY[prefix])
END;
