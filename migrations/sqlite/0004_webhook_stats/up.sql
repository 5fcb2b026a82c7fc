-- Requests counted by endpoint, time, outcome and duration, so that statistics need not read the log. A row is of a minute,
-- or of an hour once that is a day ago.
CREATE TABLE webhook_stats (
    webhook_id TEXT NOT NULL,
    started_at BIGINT NOT NULL,
    hourly BOOLEAN NOT NULL,
    succeeded BOOLEAN NOT NULL,
    -- Which range of durations.
    bucket SMALLINT NOT NULL,
    attempts BIGINT NOT NULL,
    duration_micros BIGINT NOT NULL,
    PRIMARY KEY (webhook_id, started_at, hourly, succeeded, bucket)
) WITHOUT ROWID;
CREATE INDEX webhook_stats_by_time ON webhook_stats (hourly, started_at);
