-- Whether an hour is archived in its current state.
CREATE OR REPLACE FUNCTION queue.is_archived(an_hour timestamptz) RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT EXISTS (SELECT FROM control.archives AS a JOIN queue.hours AS h USING (hour)
                   WHERE a.hour = an_hour AND a.seals = h.seals)
$$;
