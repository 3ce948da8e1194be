-- What an event says that has no column of its own, and its times as they were sent. NULL: nothing, or the row is older.
ALTER TABLE analytics.events ADD COLUMN rest jsonb;
ALTER TABLE shadow.events ADD COLUMN rest jsonb;

-- What cached look-ups are signed with: whatever else Redis returns is a miss. Who cannot read this table cannot forge.
CREATE TABLE control.cache_key (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    key      bytea NOT NULL CHECK (octet_length(key) = 32)
);
INSERT INTO control.cache_key (key) VALUES (uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()));
