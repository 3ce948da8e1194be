-- The part of processing in which an event failed. A stage is a place at which events are counted.
ALTER TABLE queue.dead_letters RENAME COLUMN stage TO failed_in;

ALTER TABLE queue.dead_letters RENAME CONSTRAINT dead_letters_stage_check TO dead_letters_failed_in_check;

ALTER TABLE queue.pruned RENAME COLUMN stage TO failed_in;

UPDATE queue.pruned SET failed_in = 'validate' WHERE outcome = 'rejected';
