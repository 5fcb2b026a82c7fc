-- What each revision of the settings changed. A value is JSON, and NULL where the setting was or is not stored; a secret has a
-- fingerprint in its place.
CREATE TABLE settings_revisions (
    revision BIGINT NOT NULL,
    key TEXT NOT NULL,
    secret BOOLEAN NOT NULL,
    old_value TEXT,
    new_value TEXT,
    action TEXT NOT NULL,
    actor TEXT NOT NULL,
    reason TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (revision, key)
) WITHOUT ROWID;
CREATE INDEX settings_revisions_created_at ON settings_revisions (created_at);
