-- Up to when the tokens of a user have been ended. A row goes once no token from before it can be alive.
CREATE TABLE token_revocations (
    user_id TEXT PRIMARY KEY,
    revoked_at BIGINT NOT NULL,
    -- The revision of all revocations that made this one.
    revision BIGINT NOT NULL
);
CREATE INDEX token_revocations_by_revision ON token_revocations (revision);
CREATE INDEX token_revocations_by_time ON token_revocations (revoked_at);
INSERT INTO revisions (name, value) VALUES ('tokens', 1);
