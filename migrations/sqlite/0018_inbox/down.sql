DELETE FROM revisions WHERE name = 'broadcasts';
DROP TABLE notification_mails;
DROP TABLE notification_addresses;
DROP TABLE notification_preferences;
DROP TABLE broadcast_states;
DROP TABLE broadcasts;
DROP TABLE inboxes;
DROP TABLE notifications;
