DELETE FROM revisions WHERE name = 'erasures';
DROP TABLE event_log_start;
