-- What the channel keeps of an attempt: the answer's headers, who answered, how it failed. JSON, read by the server alone.
ALTER TABLE delivery_attempts ADD COLUMN details TEXT;

-- What endpoints were like: with it the log shows where a request went.
CREATE TABLE webhook_versions (
    webhook_id TEXT NOT NULL REFERENCES webhooks (id) ON DELETE CASCADE,
    version BIGINT NOT NULL,
    url TEXT NOT NULL,
    -- The names of its own headers; their values may be secret.
    header_names TEXT[] NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (webhook_id, version)
);
INSERT INTO webhook_versions (webhook_id, version, url, header_names, created_at)
    SELECT id, version, url, ARRAY(SELECT json_object_keys(headers::json)), updated_at FROM webhooks;
