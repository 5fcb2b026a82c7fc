-- What few endpoints have: their own timeout and retries. JSON, read by the server alone.
ALTER TABLE webhooks ADD COLUMN options TEXT NOT NULL DEFAULT '{}';
-- The public key of an endpoint whose requests are signed with Ed25519; '' for HMAC.
ALTER TABLE webhooks ADD COLUMN public_key TEXT NOT NULL DEFAULT '';
ALTER TABLE webhooks ADD COLUMN previous_secret_expires_at TIMESTAMPTZ;

-- Secrets that were replaced and sign as well until they end.
CREATE TABLE webhook_former_secrets (
    webhook_id TEXT NOT NULL REFERENCES webhooks (id) ON DELETE CASCADE,
    -- The endpoint's version that it belonged to.
    version BIGINT NOT NULL,
    secret BYTEA NOT NULL,
    expires_at TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (webhook_id, version)
);

-- How many attempts were made before somebody asked for another try: the retries begin anew after them.
ALTER TABLE webhook_deliveries ADD COLUMN attempts_before INTEGER NOT NULL DEFAULT 0;
-- What failed within a time.
CREATE INDEX webhook_deliveries_failed ON webhook_deliveries (id) WHERE status = 'failed';
