-- Who is or was online. Each change adds one to the generation; the changes after `announced` are still to be published.
CREATE TABLE presence_users (
    user_id TEXT PRIMARY KEY,
    username TEXT NOT NULL,
    online BOOLEAN NOT NULL,
    generation BIGINT NOT NULL,
    announced BIGINT NOT NULL,
    changed_at TIMESTAMPTZ NOT NULL
);
CREATE INDEX presence_users_online ON presence_users (user_id) WHERE online;
CREATE INDEX presence_users_unannounced ON presence_users (user_id) WHERE announced < generation;
CREATE INDEX presence_users_gone ON presence_users (changed_at) WHERE NOT online;

-- The nodes that have streams of a user, or had some a moment ago. A dead node's rows go to one that lives.
CREATE TABLE presence_nodes (
    node_id BIGINT NOT NULL,
    user_id TEXT NOT NULL,
    PRIMARY KEY (node_id, user_id)
);
CREATE INDEX presence_nodes_by_user ON presence_nodes (user_id);

-- Whose turn it is to publish the server's own numbers: whoever moves the time on.
CREATE TABLE dashboard_turn (
    id SMALLINT PRIMARY KEY CHECK (id = 1),
    taken_at TIMESTAMPTZ NOT NULL,
    position BIGINT NOT NULL
);

-- What each node last said of itself, as a JSON object.
CREATE UNLOGGED TABLE dashboard_nodes (
    node_id BIGINT PRIMARY KEY,
    numbers TEXT NOT NULL,
    updated_at TIMESTAMPTZ NOT NULL
);

-- Apart from the table, so that it goes on after a crash of the database: an unlogged table's own would begin anew.
CREATE SEQUENCE live_ephemeral_seq;
-- Ephemeral events on their way to the other nodes. Used on PostgreSQL only, and empty after a crash of the database.
CREATE UNLOGGED TABLE live_ephemeral (
    seq BIGINT PRIMARY KEY DEFAULT nextval('live_ephemeral_seq'),
    node_id BIGINT NOT NULL,
    event_id TEXT NOT NULL,
    event_type TEXT NOT NULL,
    data TEXT NOT NULL,
    actor TEXT NOT NULL,
    subject TEXT NOT NULL,
    topic TEXT NOT NULL,
    collapse_key TEXT NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    written_at TIMESTAMPTZ NOT NULL
);
CREATE INDEX live_ephemeral_by_key ON live_ephemeral (topic, collapse_key, seq);

-- Requests about a stream that another node has, and what that node answered. Used on PostgreSQL only.
CREATE UNLOGGED TABLE live_mailbox (
    id BIGINT PRIMARY KEY,
    node_id BIGINT NOT NULL,
    request TEXT NOT NULL,
    answer TEXT,
    written_at TIMESTAMPTZ NOT NULL
);
CREATE INDEX live_mailbox_waiting ON live_mailbox (node_id) WHERE answer IS NULL;
