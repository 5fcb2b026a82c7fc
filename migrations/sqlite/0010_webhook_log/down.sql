DROP TABLE webhook_versions;
ALTER TABLE delivery_attempts DROP COLUMN details;
