DROP TABLE settings_revisions;
