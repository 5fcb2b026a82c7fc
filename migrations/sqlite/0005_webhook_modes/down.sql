DROP INDEX webhook_deliveries_ordered;
ALTER TABLE webhook_deliveries DROP COLUMN ordering_position;
ALTER TABLE webhook_deliveries DROP COLUMN ordering_key;
