-- What is in the inbox of one user. position is that of the event that brought it, or that made it unread again: the order of
-- the inbox, and what "all up to this one" goes by.
CREATE TABLE notifications (
    user_id TEXT NOT NULL,
    id TEXT NOT NULL,
    position BIGINT NOT NULL,
    event_id TEXT NOT NULL,
    category TEXT NOT NULL,
    title TEXT NOT NULL,
    message TEXT NOT NULL,
    priority SMALLINT NOT NULL,
    action_url TEXT NOT NULL,
    data TEXT NOT NULL,
    replace_key TEXT,
    created_at TIMESTAMPTZ NOT NULL,
    updated_at TIMESTAMPTZ NOT NULL,
    seen_at TIMESTAMPTZ,
    read_at TIMESTAMPTZ,
    archived_at TIMESTAMPTZ,
    expires_at TIMESTAMPTZ,
    PRIMARY KEY (user_id, id)
);
CREATE INDEX notifications_by_position ON notifications (user_id, position);
CREATE INDEX notifications_by_id ON notifications (id, user_id);
CREATE INDEX notifications_by_event ON notifications (event_id);
CREATE INDEX notifications_by_replace_key ON notifications (user_id, replace_key) WHERE replace_key IS NOT NULL;
CREATE INDEX notifications_by_expiry ON notifications (expires_at) WHERE expires_at IS NOT NULL;
CREATE INDEX notifications_expiring ON notifications (user_id, expires_at) WHERE expires_at IS NOT NULL;
CREATE INDEX notifications_by_age ON notifications (created_at);
-- A user with an inbox: how many of the rows above are unread, unseen and there at all. Whoever changes any of it holds this row.
-- version grows with every change.
CREATE TABLE inboxes (
    user_id TEXT PRIMARY KEY,
    unread BIGINT NOT NULL,
    unseen BIGINT NOT NULL,
    total BIGINT NOT NULL,
    version BIGINT NOT NULL,
    preferences_version BIGINT NOT NULL
);
-- What everybody has in their inbox: one row for all.
CREATE TABLE broadcasts (
    id TEXT PRIMARY KEY,
    position BIGINT NOT NULL,
    event_id TEXT NOT NULL,
    category TEXT NOT NULL,
    title TEXT NOT NULL,
    message TEXT NOT NULL,
    priority SMALLINT NOT NULL,
    action_url TEXT NOT NULL,
    data TEXT NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    updated_at TIMESTAMPTZ NOT NULL,
    expires_at TIMESTAMPTZ,
    withdrawn_at TIMESTAMPTZ
);
CREATE INDEX broadcasts_by_position ON broadcasts (position);
CREATE INDEX broadcasts_by_event ON broadcasts (event_id);
CREATE INDEX broadcasts_by_expiry ON broadcasts (expires_at) WHERE expires_at IS NOT NULL;
-- What a user did with a broadcast. It holds as long as the position is the broadcast's: one that is to be unread again gets
-- another.
CREATE TABLE broadcast_states (
    user_id TEXT NOT NULL,
    broadcast_id TEXT NOT NULL,
    position BIGINT NOT NULL,
    seen_at TIMESTAMPTZ,
    read_at TIMESTAMPTZ,
    archived_at TIMESTAMPTZ,
    PRIMARY KEY (user_id, broadcast_id)
);
CREATE INDEX broadcast_states_by_broadcast ON broadcast_states (broadcast_id, user_id);
-- What a user wants to be told, by category and channel (inbox, email); category * stands for all others.
CREATE TABLE notification_preferences (
    user_id TEXT NOT NULL,
    category TEXT NOT NULL,
    channel TEXT NOT NULL,
    enabled BOOLEAN NOT NULL,
    PRIMARY KEY (user_id, category, channel)
);
-- Where the mails of a user go. Apart from what changes often, of which copies stay in the free places of a page.
CREATE TABLE notification_addresses (
    user_id TEXT PRIMARY KEY,
    email_address TEXT NOT NULL
);
-- A mail for what is not seen by then.
CREATE TABLE notification_mails (
    user_id TEXT NOT NULL,
    notification_id TEXT NOT NULL,
    email_address TEXT NOT NULL,
    due_at TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (user_id, notification_id)
);
CREATE INDEX notification_mails_by_due ON notification_mails (due_at);
-- Grows with every change of the broadcasts.
INSERT INTO revisions (name, value) VALUES ('broadcasts', 1);
