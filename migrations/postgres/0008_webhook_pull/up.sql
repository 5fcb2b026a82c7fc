-- Up to where the receiver of a pulled endpoint has acknowledged the log.
CREATE TABLE webhook_cursors (
    webhook_id TEXT PRIMARY KEY REFERENCES webhooks (id) ON DELETE CASCADE,
    position BIGINT NOT NULL,
    updated_at TIMESTAMPTZ NOT NULL
);
