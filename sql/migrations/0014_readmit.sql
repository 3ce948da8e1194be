-- When a rejected event was let in after all, corrected. It stays what it was: received and rejected; what was let in is
-- received once more.
ALTER TABLE queue.quarantine ADD COLUMN readmitted_at timestamptz;
