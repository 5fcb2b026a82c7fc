-- A key that seals may be retired: it opens what it sealed until everything is sealed anew.
CREATE TABLE data_keys_with_states (
    id TEXT PRIMARY KEY,
    purpose TEXT NOT NULL,
    wrapped BLOB NOT NULL,
    created_at BIGINT NOT NULL,
    retired_at BIGINT
);
INSERT INTO data_keys_with_states (id, purpose, wrapped, created_at)
SELECT id, purpose, wrapped, created_at FROM data_keys;
DROP TABLE data_keys;
ALTER TABLE data_keys_with_states RENAME TO data_keys;
CREATE UNIQUE INDEX data_keys_active ON data_keys (purpose) WHERE retired_at IS NULL;
INSERT INTO revisions (name, value) VALUES ('data_keys', 1);
