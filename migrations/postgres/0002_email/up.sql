-- What few mails have: headers, locale, preheader, topic, tracking. JSON, read by the server alone.
ALTER TABLE email_queue ADD COLUMN options TEXT NOT NULL DEFAULT '{}';
-- After this it is not sent any more.
ALTER TABLE email_queue ADD COLUMN expires_at TIMESTAMPTZ;
-- The bodies of mails without a template, in a table of their own: a change of a mail's state does not rewrite them.
CREATE TABLE email_contents (
    email_id TEXT PRIMARY KEY REFERENCES email_queue (id) ON DELETE CASCADE,
    html_body TEXT NOT NULL,
    plain_body TEXT NOT NULL
);
INSERT INTO email_contents (email_id, html_body, plain_body)
    SELECT id, html_body, plain_body FROM email_queue WHERE template = '';
ALTER TABLE email_queue DROP COLUMN html_body;
ALTER TABLE email_queue DROP COLUMN plain_body;
-- Lanes are by urgency now.
UPDATE email_queue SET destination = 'transactional';
-- Mails that were held for the same time go in the order in which they came.
DROP INDEX email_queue_waiting;
CREATE INDEX email_queue_waiting ON email_queue (destination, next_attempt_at, id)
    WHERE status IN ('scheduled', 'pending', 'retrying', 'held');
-- Lists of what did not go well.
CREATE INDEX email_queue_troubled ON email_queue (status, id)
    WHERE status IN ('scheduled', 'retrying', 'held', 'failed', 'cancelled', 'unknown');

-- How many attempts were made before somebody asked for another try: the retries begin anew after them.
ALTER TABLE email_queue ADD COLUMN attempts_before INTEGER NOT NULL DEFAULT 0;

-- The recipients of each mail. While `status` is null, a recipient stands where the mail stands.
CREATE TABLE email_recipients (
    email_id TEXT NOT NULL REFERENCES email_queue (id) ON DELETE CASCADE,
    address TEXT NOT NULL,
    status TEXT,
    response_status INTEGER,
    reply TEXT,
    updated_at TIMESTAMPTZ,
    PRIMARY KEY (email_id, address)
);
CREATE INDEX email_recipients_by_address ON email_recipients (address, email_id);

-- The files of mails: each content once, by its SHA-256.
CREATE TABLE email_blobs (
    id TEXT PRIMARY KEY,
    content BYTEA NOT NULL,
    created_at TIMESTAMPTZ NOT NULL
);
CREATE TABLE email_attachments (
    email_id TEXT NOT NULL REFERENCES email_queue (id) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    filename TEXT NOT NULL,
    content_type TEXT NOT NULL,
    content_id TEXT NOT NULL,
    size BIGINT NOT NULL,
    blob_id TEXT NOT NULL REFERENCES email_blobs (id),
    PRIMARY KEY (email_id, number)
);
CREATE INDEX email_attachments_by_blob ON email_attachments (blob_id);

-- What was said between client and server in an attempt that failed.
ALTER TABLE delivery_attempts ADD COLUMN transcript TEXT;

-- How much of a limit is used since its window began.
CREATE TABLE send_limits (
    name TEXT PRIMARY KEY,
    window_start TIMESTAMPTZ NOT NULL,
    used BIGINT NOT NULL
);

-- Texts that are used in place of the compiled templates or beside them; `locale` is '' for the one that others fall
-- back to.
CREATE TABLE email_templates (
    name TEXT NOT NULL,
    locale TEXT NOT NULL,
    description TEXT NOT NULL,
    variables TEXT NOT NULL,
    subject TEXT NOT NULL,
    html_body TEXT NOT NULL,
    plain_body TEXT NOT NULL,
    preheader TEXT NOT NULL,
    version BIGINT NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    updated_at TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (name, locale)
);
CREATE TABLE email_template_versions (
    name TEXT NOT NULL,
    locale TEXT NOT NULL,
    version BIGINT NOT NULL,
    subject TEXT NOT NULL,
    html_body TEXT NOT NULL,
    plain_body TEXT NOT NULL,
    preheader TEXT NOT NULL,
    created_by TEXT NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (name, locale, version)
);
INSERT INTO revisions (name, value) VALUES ('templates', 1);

-- Addresses that get no mail, of any topic ('') or of one.
CREATE TABLE suppressions (
    address TEXT NOT NULL,
    topic TEXT NOT NULL,
    reason TEXT NOT NULL,
    origin TEXT NOT NULL,
    detail TEXT NOT NULL,
    email_id TEXT,
    expires_at TIMESTAMPTZ,
    created_at TIMESTAMPTZ NOT NULL,
    updated_at TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (address, topic)
);
CREATE INDEX suppressions_by_expiry ON suppressions (expires_at) WHERE expires_at IS NOT NULL;

-- What recipients did with mails that are tracked, and what came back.
CREATE TABLE email_activities (
    id TEXT PRIMARY KEY,
    email_id TEXT NOT NULL,
    address TEXT NOT NULL,
    kind TEXT NOT NULL,
    detail TEXT NOT NULL,
    automated BOOLEAN NOT NULL,
    created_at TIMESTAMPTZ NOT NULL
);
CREATE INDEX email_activities_by_email ON email_activities (email_id, id);
