-- Where the audit log begins, once entries were removed for their age: the last of them, under a MAC.
CREATE TABLE audit_base (
    id BIGINT PRIMARY KEY CHECK (id = 1),
    seq BIGINT NOT NULL,
    hash TEXT NOT NULL,
    mac TEXT NOT NULL
);
