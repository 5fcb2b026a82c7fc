ALTER TABLE webhooks DROP COLUMN client_key;
