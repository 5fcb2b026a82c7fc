DROP TABLE email_activities;
DROP TABLE suppressions;
DROP TABLE email_template_versions;
DROP TABLE email_templates;
DROP TABLE send_limits;
DROP TABLE email_attachments;
DROP TABLE email_blobs;
DROP TABLE email_recipients;
DELETE FROM revisions WHERE name = 'templates';
ALTER TABLE delivery_attempts DROP COLUMN transcript;
DROP INDEX email_queue_troubled;
DROP INDEX email_queue_waiting;
CREATE INDEX email_queue_waiting ON email_queue (destination, next_attempt_at)
    WHERE status IN ('scheduled', 'pending', 'retrying', 'held');
ALTER TABLE email_queue DROP COLUMN attempts_before;
ALTER TABLE email_queue ADD COLUMN html_body TEXT NOT NULL DEFAULT '';
ALTER TABLE email_queue ADD COLUMN plain_body TEXT NOT NULL DEFAULT '';
UPDATE email_queue SET
    html_body = COALESCE((SELECT html_body FROM email_contents WHERE email_id = id), ''),
    plain_body = COALESCE((SELECT plain_body FROM email_contents WHERE email_id = id), '');
DROP TABLE email_contents;
ALTER TABLE email_queue DROP COLUMN expires_at;
ALTER TABLE email_queue DROP COLUMN options;
UPDATE email_queue SET destination = 'smtp';
