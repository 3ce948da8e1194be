-- Creates the partitions of a day, in production and in shadow.
CREATE OR REPLACE FUNCTION analytics.open_day(a_day date) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    part text := 'events_' || to_char(a_day, 'YYYYMMDD');
    a_schema text;
BEGIN
    IF to_regclass('analytics.' || part) IS NOT NULL AND to_regclass('shadow.' || part) IS NOT NULL THEN
        RETURN;
    END IF;
    PERFORM pg_advisory_xact_lock(hashtext('analytics.open_day'));
    FOREACH a_schema IN ARRAY ARRAY['analytics', 'shadow'] LOOP
        IF to_regclass(a_schema || '.' || part) IS NULL THEN
            PERFORM control.add_partition(a_schema || '.events', a_schema || '.' || part,
                                          a_day::timestamp AT TIME ZONE 'UTC', (a_day + 1)::timestamp AT TIME ZONE 'UTC');
        END IF;
    END LOOP;
END $$;
