-- The type and length of a value, which do not reveal the value.
CREATE OR REPLACE FUNCTION reconcile.shape(value jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN jsonb_build_object('type', coalesce(jsonb_typeof(value), 'absent'),
                          'length', coalesce(length(value #>> '{}'), 0));
