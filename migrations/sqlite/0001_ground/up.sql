-- Instants are microseconds since 1970 and lists are JSON arrays; everything else is as on PostgreSQL.

-- The live log's end and identity: `next_position` is taken under this row's lock, so that the order of positions is
-- the order of commits. `epoch` tells one database from another when a cursor comes back.
CREATE TABLE event_log (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    epoch BIGINT NOT NULL,
    next_position BIGINT NOT NULL
);

CREATE TABLE events (
    position INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    event_type TEXT NOT NULL,
    data TEXT NOT NULL,
    actor TEXT NOT NULL,
    subject TEXT NOT NULL,
    created_at BIGINT NOT NULL
);
CREATE INDEX events_by_type ON events (event_type, position);
CREATE INDEX events_by_subject ON events (subject, position) WHERE subject <> '';

CREATE TABLE event_types (
    name TEXT PRIMARY KEY,
    description TEXT NOT NULL,
    fields TEXT NOT NULL,
    json_schema TEXT NOT NULL,
    sample TEXT NOT NULL,
    version BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);

CREATE TABLE routes (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    event_type TEXT NOT NULL,
    condition TEXT NOT NULL,
    active BOOLEAN NOT NULL,
    target TEXT NOT NULL,
    version BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);

-- Answers to requests that carried a request id, so that a repeat gets the same one.
CREATE TABLE requests (
    principal TEXT NOT NULL,
    request_id TEXT NOT NULL,
    fingerprint BLOB NOT NULL,
    result TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (principal, request_id)
) WITHOUT ROWID;
CREATE INDEX requests_by_age ON requests (created_at);

-- Counters that a commit compares with what a node has in memory.
CREATE TABLE revisions (
    name TEXT PRIMARY KEY,
    value BIGINT NOT NULL
);
INSERT INTO revisions (name, value) VALUES ('subscriptions', 1), ('settings', 1);

CREATE TABLE webhooks (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    url TEXT NOT NULL,
    events TEXT NOT NULL,
    description TEXT NOT NULL,
    active BOOLEAN NOT NULL,
    headers TEXT NOT NULL,
    secret BLOB NOT NULL,
    version BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);

CREATE TABLE webhook_deliveries (
    id TEXT PRIMARY KEY,
    webhook_id TEXT NOT NULL REFERENCES webhooks (id) ON DELETE CASCADE,
    event_id TEXT NOT NULL,
    event_type TEXT NOT NULL,
    status TEXT NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    error_message TEXT,
    response_status INTEGER,
    next_attempt_at BIGINT NOT NULL,
    lease_owner BIGINT,
    lease_token BIGINT NOT NULL DEFAULT 0,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
) WITHOUT ROWID;
CREATE INDEX webhook_deliveries_by_webhook ON webhook_deliveries (webhook_id, id);
CREATE INDEX webhook_deliveries_by_event ON webhook_deliveries (event_id);
CREATE INDEX webhook_deliveries_waiting ON webhook_deliveries (webhook_id, next_attempt_at)
    WHERE status IN ('scheduled', 'pending', 'retrying', 'held');
CREATE INDEX webhook_deliveries_sending ON webhook_deliveries (lease_owner) WHERE status = 'sending';

CREATE TABLE email_queue (
    id TEXT PRIMARY KEY,
    event_id TEXT,
    route_id TEXT,
    template TEXT NOT NULL,
    variables TEXT NOT NULL,
    to_addresses TEXT NOT NULL,
    cc_addresses TEXT NOT NULL,
    bcc_addresses TEXT NOT NULL,
    reply_to TEXT NOT NULL,
    subject TEXT NOT NULL,
    html_body TEXT NOT NULL,
    plain_body TEXT NOT NULL,
    -- The lane that carries it.
    destination TEXT NOT NULL,
    status TEXT NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    error_message TEXT,
    response_status INTEGER,
    next_attempt_at BIGINT NOT NULL,
    lease_owner BIGINT,
    lease_token BIGINT NOT NULL DEFAULT 0,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
) WITHOUT ROWID;
CREATE INDEX email_queue_by_event ON email_queue (event_id) WHERE event_id IS NOT NULL;
CREATE INDEX email_queue_waiting ON email_queue (destination, next_attempt_at)
    WHERE status IN ('scheduled', 'pending', 'retrying', 'held');
CREATE INDEX email_queue_sending ON email_queue (lease_owner) WHERE status = 'sending';

-- What a mail looked like when it was captured instead of sent.
CREATE TABLE captured_emails (
    email_id TEXT PRIMARY KEY REFERENCES email_queue (id) ON DELETE CASCADE,
    from_address TEXT NOT NULL,
    subject TEXT NOT NULL,
    html_body TEXT NOT NULL,
    plain_body TEXT NOT NULL,
    created_at BIGINT NOT NULL
);

CREATE TABLE recipient_lists (
    name TEXT PRIMARY KEY,
    description TEXT NOT NULL,
    addresses TEXT NOT NULL,
    version BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);

-- One row for each attempt on any channel.
CREATE TABLE delivery_attempts (
    delivery_id TEXT NOT NULL,
    number INTEGER NOT NULL,
    started_at BIGINT NOT NULL,
    duration_micros BIGINT NOT NULL,
    response_status INTEGER,
    response_body TEXT,
    error_message TEXT,
    PRIMARY KEY (delivery_id, number)
) WITHOUT ROWID;

-- Who works on this database. A node that stops renewing its lease loses its deliveries to the others.
CREATE TABLE nodes (
    id BIGINT PRIMARY KEY,
    started_at BIGINT NOT NULL,
    lease_until BIGINT NOT NULL
);

CREATE TABLE api_keys (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    description TEXT NOT NULL,
    scopes TEXT NOT NULL,
    key_prefix TEXT NOT NULL UNIQUE,
    key_hash BLOB NOT NULL,
    active BOOLEAN NOT NULL,
    created_by TEXT NOT NULL,
    expires_at BIGINT NOT NULL,
    revoked_at BIGINT,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);

CREATE TABLE settings (
    key TEXT PRIMARY KEY,
    value TEXT,
    sealed BLOB,
    updated_by TEXT NOT NULL,
    updated_at BIGINT NOT NULL
);

-- Keys that seal secrets and sign API keys, wrapped by the master key that lives outside the database.
CREATE TABLE data_keys (
    id TEXT PRIMARY KEY,
    purpose TEXT NOT NULL UNIQUE,
    wrapped BLOB NOT NULL,
    created_at BIGINT NOT NULL
);
