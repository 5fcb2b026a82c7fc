-- Where the log begins: an event at this position or before it may have been removed for its age. A row of its own, so that
-- whoever removes events does not keep those waiting who publish.
CREATE TABLE event_log_start (
    id SMALLINT PRIMARY KEY CHECK (id = 1),
    position BIGINT NOT NULL
);
INSERT INTO event_log_start (id, position) SELECT 1, COALESCE(min(position), 1) - 1 FROM events;
-- How often a subject was erased: other nodes forget then what they have in memory.
INSERT INTO revisions (name, value) VALUES ('erasures', 1);

-- Events, and the attempts of webhook deliveries, in a partition for each day of their ids, so that a day goes by dropping a
-- table. Nodes make the partitions ahead. What was there before stays where it is, as the first partition, up to the end of
-- today; the default one takes what fits nowhere, as when a clock was wrong.
ALTER TABLE events RENAME TO events_before;
ALTER TABLE events_before DROP CONSTRAINT events_pkey;
ALTER TABLE events_before RENAME CONSTRAINT events_id_key TO events_before_id_key;
ALTER INDEX events_by_type RENAME TO events_before_by_type;
ALTER INDEX events_by_subject RENAME TO events_before_by_subject;
-- That positions are unique, the lock of the row of `event_log` sees to.
CREATE TABLE events (
    LIKE events_before INCLUDING DEFAULTS INCLUDING CONSTRAINTS,
    CONSTRAINT events_id_key UNIQUE (id)
) PARTITION BY RANGE (id);
CREATE INDEX events_by_position ON events (position);
CREATE INDEX events_by_type ON events (event_type, position);
CREATE INDEX events_by_subject ON events (subject, position) WHERE subject <> '';
CREATE TABLE events_default PARTITION OF events DEFAULT;

ALTER TABLE delivery_attempts RENAME TO delivery_attempts_before;
ALTER TABLE delivery_attempts_before RENAME CONSTRAINT delivery_attempts_pkey TO delivery_attempts_before_pkey;
CREATE TABLE delivery_attempts (
    LIKE delivery_attempts_before INCLUDING DEFAULTS INCLUDING CONSTRAINTS,
    CONSTRAINT delivery_attempts_pkey PRIMARY KEY (delivery_id, number)
) PARTITION BY RANGE (delivery_id);
CREATE TABLE delivery_attempts_default PARTITION OF delivery_attempts DEFAULT;
-- Those of mails go one by one, with their mails.
CREATE TABLE delivery_attempts_emails PARTITION OF delivery_attempts FOR VALUES FROM (MINVALUE) TO ('whd_');

DO $$
DECLARE
    millis BIGINT := (floor(extract(epoch FROM clock_timestamp()) / 86400)::BIGINT + 1) * 86400000;
    bound TEXT := '';
    digit INTEGER;
BEGIN
    -- The first id of tomorrow: ten digits of base 32, and the least that can follow.
    FOR digit IN 0..9 LOOP
        bound := substr('0123456789abcdefghjkmnpqrstvwxyz', ((millis >> (5 * digit)) & 31)::INTEGER + 1, 1) || bound;
    END LOOP;
    bound := bound || repeat('0', 16);
    WITH moved AS (DELETE FROM events_before WHERE id >= 'evt_' || bound RETURNING *)
        INSERT INTO events SELECT * FROM moved;
    WITH moved AS (
        DELETE FROM delivery_attempts_before WHERE delivery_id < 'whd_' OR delivery_id >= 'whd_' || bound RETURNING *
    )
        INSERT INTO delivery_attempts SELECT * FROM moved;
    IF EXISTS (SELECT 1 FROM events_before) THEN
        EXECUTE format('ALTER TABLE events ATTACH PARTITION events_before FOR VALUES FROM (MINVALUE) TO (%L)', 'evt_' || bound);
    ELSE
        DROP TABLE events_before;
    END IF;
    IF EXISTS (SELECT 1 FROM delivery_attempts_before) THEN
        EXECUTE format('ALTER TABLE delivery_attempts ATTACH PARTITION delivery_attempts_before FOR VALUES FROM (%L) TO (%L)',
            'whd_', 'whd_' || bound);
    ELSE
        DROP TABLE delivery_attempts_before;
    END IF;
END $$;
