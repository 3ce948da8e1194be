-- When the event of a difference was received, so that a newer comparison of that time supersedes it. NULL in rows from
-- before the column.
ALTER TABLE reconcile.differences ADD COLUMN received_at timestamptz;
