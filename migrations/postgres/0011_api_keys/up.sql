ALTER TABLE api_keys
    ADD COLUMN kind TEXT NOT NULL DEFAULT 'live',
    -- Whose key it is, in the words of the application.
    ADD COLUMN external_id TEXT NOT NULL DEFAULT '',
    ADD COLUMN metadata TEXT NOT NULL DEFAULT '{}',
    ADD COLUMN disabled BOOLEAN NOT NULL DEFAULT FALSE,
    -- Rate limits and networks. JSON, read by the server alone.
    ADD COLUMN rules TEXT NOT NULL DEFAULT '{}',
    -- Where its credits are: a key that replaces another one goes on with the same.
    ADD COLUMN credits_id TEXT,
    ADD COLUMN replaces TEXT,
    ADD COLUMN replaced_by TEXT,
    -- For how many days before the end it was last announced that the end comes.
    ADD COLUMN expiry_notice SMALLINT,
    -- Events that are to be published, apart by a space.
    ADD COLUMN unannounced TEXT NOT NULL DEFAULT '',
    ADD COLUMN version BIGINT NOT NULL DEFAULT 1,
    -- The revision of all keys that the last change of this one made.
    ADD COLUMN revision BIGINT NOT NULL DEFAULT 0;
CREATE INDEX api_keys_by_revision ON api_keys (revision);
CREATE INDEX api_keys_by_external_id ON api_keys (external_id, id) WHERE external_id <> '';
CREATE INDEX api_keys_by_end ON api_keys (expires_at) WHERE active;
CREATE INDEX api_keys_unannounced ON api_keys (id) WHERE unannounced <> '';
INSERT INTO revisions (name, value) VALUES ('api_keys', 1);

CREATE TABLE api_key_credits (
    id TEXT PRIMARY KEY,
    -- What no node has taken yet.
    remaining BIGINT NOT NULL,
    refill_amount BIGINT NOT NULL,
    refill_interval TEXT NOT NULL,
    refill_at TIMESTAMPTZ,
    -- Grows when somebody sets the credits or they are filled up: what was taken before is worth nothing then.
    version BIGINT NOT NULL
);

-- Scopes of applications.
CREATE TABLE api_key_scopes (
    name TEXT PRIMARY KEY,
    description TEXT NOT NULL,
    created_at TIMESTAMPTZ NOT NULL
);

-- Calls counted by key, time, endpoint and status. A row is of a minute, of an hour once that is a day ago, and of a day after
-- a month.
CREATE TABLE api_key_usage (
    key_id TEXT NOT NULL,
    -- Minutes: 1, 60 or 1440.
    span SMALLINT NOT NULL,
    started_at TIMESTAMPTZ NOT NULL,
    method TEXT NOT NULL,
    endpoint TEXT NOT NULL,
    -- The first digit of the HTTP status.
    status_class SMALLINT NOT NULL,
    calls BIGINT NOT NULL,
    PRIMARY KEY (key_id, span, started_at, method, endpoint, status_class)
);
CREATE INDEX api_key_usage_by_time ON api_key_usage (span, started_at);

-- The same calls by how long they took.
CREATE TABLE api_key_durations (
    key_id TEXT NOT NULL,
    span SMALLINT NOT NULL,
    started_at TIMESTAMPTZ NOT NULL,
    -- Which range of durations.
    bucket SMALLINT NOT NULL,
    calls BIGINT NOT NULL,
    PRIMARY KEY (key_id, span, started_at, bucket)
);
CREATE INDEX api_key_durations_by_time ON api_key_durations (span, started_at);

CREATE TABLE api_key_logs (
    id TEXT PRIMARY KEY,
    key_id TEXT NOT NULL,
    method TEXT NOT NULL,
    endpoint TEXT NOT NULL,
    status SMALLINT NOT NULL,
    code TEXT NOT NULL,
    ip_address TEXT NOT NULL,
    duration_micros BIGINT NOT NULL,
    created_at TIMESTAMPTZ NOT NULL
);
CREATE INDEX api_key_logs_by_key ON api_key_logs (key_id, id);

-- When a key was last used. Apart from the key, so that using it does not change it.
CREATE TABLE api_key_activity (
    key_id TEXT PRIMARY KEY,
    last_used_at TIMESTAMPTZ NOT NULL
);

-- The networks that a key was used from.
CREATE TABLE api_key_networks (
    key_id TEXT NOT NULL,
    network TEXT NOT NULL,
    first_used_at TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (key_id, network)
);
