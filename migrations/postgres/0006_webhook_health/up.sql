-- Why the server made an endpoint inactive; '' when it did not.
ALTER TABLE webhooks ADD COLUMN disabled_reason TEXT NOT NULL DEFAULT '';

-- How endpoints fare; one without a row was not asked yet.
CREATE TABLE webhook_health (
    webhook_id TEXT NOT NULL PRIMARY KEY REFERENCES webhooks (id) ON DELETE CASCADE,
    -- Since when every request failed.
    failing_since TIMESTAMPTZ,
    failures BIGINT NOT NULL DEFAULT 0,
    last_success_at TIMESTAMPTZ,
    last_failure_at TIMESTAMPTZ,
    last_error TEXT NOT NULL DEFAULT '',
    -- Whether it answered 410 since then.
    gone BOOLEAN NOT NULL DEFAULT FALSE,
    -- Whether webhook.failing has been decided since then.
    announced BOOLEAN NOT NULL DEFAULT FALSE
);
CREATE INDEX webhook_health_failing ON webhook_health (webhook_id) WHERE failing_since IS NOT NULL;

-- Events about endpoints that were decided and are not known to be published.
CREATE TABLE webhook_notices (
    -- The request id of the publish.
    id TEXT NOT NULL PRIMARY KEY,
    webhook_id TEXT NOT NULL,
    event_type TEXT NOT NULL,
    data TEXT NOT NULL
);
