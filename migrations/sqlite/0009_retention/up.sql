-- Where the log begins: an event at this position or before it may have been removed for its age. A row of its own, so that
-- whoever removes events does not keep those waiting who publish.
CREATE TABLE event_log_start (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    position BIGINT NOT NULL
);
INSERT INTO event_log_start (id, position) SELECT 1, COALESCE(min(position), 1) - 1 FROM events;
-- How often a subject was erased: other nodes forget then what they have in memory.
INSERT INTO revisions (name, value) VALUES ('erasures', 1);
