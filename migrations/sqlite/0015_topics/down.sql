DROP INDEX events_by_topic;
ALTER TABLE events DROP COLUMN topic;
