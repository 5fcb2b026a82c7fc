-- What an endpoint that wants its events in order has: the subject that the delivery is in order with, and its event's place
-- in the log. NULL for every other endpoint.
ALTER TABLE webhook_deliveries ADD COLUMN ordering_key TEXT;
ALTER TABLE webhook_deliveries ADD COLUMN ordering_position BIGINT;
-- The first row of a subject is the one in hand or due; behind it are those that wait for it.
CREATE INDEX webhook_deliveries_ordered ON webhook_deliveries (webhook_id, ordering_key, next_attempt_at, ordering_position)
    WHERE ordering_key IS NOT NULL AND status IN ('scheduled', 'pending', 'retrying', 'held', 'sending');
