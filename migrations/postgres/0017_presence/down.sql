DROP TABLE live_mailbox;
DROP TABLE live_ephemeral;
DROP SEQUENCE live_ephemeral_seq;
DROP TABLE dashboard_nodes;
DROP TABLE dashboard_turn;
DROP TABLE presence_nodes;
DROP TABLE presence_users;
