-- queue.drop_hour for installations with archives: an hour is dropped only after it is archived.
CREATE OR REPLACE FUNCTION queue.drop_archived_hour(an_hour timestamptz, retention interval) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF NOT queue.is_archived(an_hour) THEN
        RAISE EXCEPTION 'hour % is not archived', an_hour USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    PERFORM queue.drop_hour(an_hour, retention);
END $$;
