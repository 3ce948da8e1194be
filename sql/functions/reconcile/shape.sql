-- What may be said of a value without saying it.
CREATE OR REPLACE FUNCTION reconcile.shape(value jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN jsonb_build_object('type', coalesce(jsonb_typeof(value), 'absent'),
                          'length', coalesce(length(value #>> '{}'), 0));
