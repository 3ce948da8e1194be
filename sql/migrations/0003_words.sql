-- The part of processing in which an event failed. A stage is a place at which events are counted.
ALTER TABLE queue.dead_letters RENAME COLUMN stage TO failed_in;

ALTER TABLE queue.dead_letters RENAME CONSTRAINT dead_letters_stage_check TO dead_letters_failed_in_check;

ALTER TABLE queue.pruned RENAME COLUMN stage TO failed_in;

UPDATE queue.pruned SET failed_in = 'validate' WHERE outcome = 'rejected';

-- An attempt is one try to deliver a dead letter. Work has deaths, a chunk was taken, an alert channel sends.
ALTER TABLE queue.work RENAME COLUMN attempts TO deaths;

ALTER TABLE replay.chunks RENAME COLUMN attempts TO times_taken;

ALTER TABLE control.alert_channels RENAME COLUMN next_attempt_at TO next_send_at;
