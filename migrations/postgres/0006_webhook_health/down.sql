DROP TABLE webhook_notices;
DROP TABLE webhook_health;
ALTER TABLE webhooks DROP COLUMN disabled_reason;
