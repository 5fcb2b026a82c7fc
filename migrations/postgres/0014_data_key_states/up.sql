-- A key that seals may be retired: it opens what it sealed until everything is sealed anew.
ALTER TABLE data_keys ADD COLUMN retired_at TIMESTAMPTZ;
ALTER TABLE data_keys DROP CONSTRAINT data_keys_purpose_key;
CREATE UNIQUE INDEX data_keys_active ON data_keys (purpose) WHERE retired_at IS NULL;
INSERT INTO revisions (name, value) VALUES ('data_keys', 1);
