-- A tenant's name is one line of text that can be seen: it stands in tables, logs and messages. Names that are there
-- already stay, so the constraint is not validated.
ALTER TABLE control.tenants ADD CONSTRAINT tenants_name_can_be_seen CHECK (
    name ~ '\S' AND name !~ '[\u0001-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb]'
) NOT VALID;
