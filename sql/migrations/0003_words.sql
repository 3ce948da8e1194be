-- The part of processing in which an event failed. A stage is a place at which events are counted.
ALTER TABLE queue.dead_letters RENAME COLUMN stage TO failed_in;

ALTER TABLE queue.dead_letters RENAME CONSTRAINT dead_letters_stage_check TO dead_letters_failed_in_check;

ALTER TABLE queue.pruned RENAME COLUMN stage TO failed_in;

UPDATE queue.pruned SET failed_in = 'validate' WHERE outcome = 'rejected';

-- An attempt is one try to deliver a dead letter. Work has deaths, a chunk was taken, an alert channel sends.
ALTER TABLE queue.work RENAME COLUMN attempts TO deaths;

ALTER TABLE replay.chunks RENAME COLUMN attempts TO times_taken;

ALTER TABLE control.alert_channels RENAME COLUMN next_attempt_at TO next_send_at;

-- A mark is a row that says which roll-ups are counted again. This table holds counts, and when each last grew.
ALTER TABLE control.alert_marks RENAME TO alert_progress;

ALTER TABLE control.alert_progress RENAME CONSTRAINT alert_marks_pkey TO alert_progress_pkey;

-- Constraints on NOT NULL have names since PostgreSQL 18. They follow their tables and columns.
DO $$
DECLARE
    was record;
BEGIN
    FOR was IN
        SELECT c.conrelid::regclass AS relation, c.conname, r.relname || '_' || a.attname || '_not_null' AS name
        FROM pg_constraint AS c
        JOIN pg_class AS r ON r.oid = c.conrelid
        JOIN pg_attribute AS a ON a.attrelid = c.conrelid AND a.attnum = c.conkey[1]
        WHERE c.contype = 'n'
          AND c.conrelid IN ('queue.dead_letters'::regclass, 'queue.pruned'::regclass, 'queue.work'::regclass,
                             'replay.chunks'::regclass, 'control.alert_channels'::regclass,
                             'control.alert_progress'::regclass)
          AND c.conname <> r.relname || '_' || a.attname || '_not_null'
    LOOP
        EXECUTE format('ALTER TABLE %s RENAME CONSTRAINT %I TO %I', was.relation, was.conname, was.name);
    END LOOP;
END $$;
