-- When the event of a difference was received, so that a newer comparison of that time supersedes it. NULL in rows from
-- before the column.
ALTER TABLE reconcile.differences ADD COLUMN received_at timestamptz;

-- When a person took note of a loss, so that it no longer keeps the old pipeline from being switched off.
ALTER TABLE legacy.losses ADD COLUMN acknowledged_at timestamptz;
