DROP INDEX webhook_deliveries_failed;
ALTER TABLE webhook_deliveries DROP COLUMN attempts_before;
DROP TABLE webhook_former_secrets;
ALTER TABLE webhooks DROP COLUMN previous_secret_expires_at;
ALTER TABLE webhooks DROP COLUMN public_key;
ALTER TABLE webhooks DROP COLUMN options;
