DELETE FROM revisions WHERE name = 'data_keys';
DROP INDEX data_keys_active;
CREATE TABLE data_keys_without_states (
    id TEXT PRIMARY KEY,
    purpose TEXT NOT NULL UNIQUE,
    wrapped BLOB NOT NULL,
    created_at BIGINT NOT NULL
);
INSERT INTO data_keys_without_states (id, purpose, wrapped, created_at)
SELECT id, purpose, wrapped, created_at FROM data_keys;
DROP TABLE data_keys;
ALTER TABLE data_keys_without_states RENAME TO data_keys;
