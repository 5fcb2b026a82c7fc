-- Who may see an event live.
ALTER TABLE events ADD COLUMN topic TEXT NOT NULL DEFAULT 'events';
-- Most events have no topic of their own, and are found by their position alone.
CREATE INDEX events_by_topic ON events (topic, position) WHERE topic <> 'events';
