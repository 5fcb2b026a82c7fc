DELETE FROM revisions WHERE name = 'tokens';
DROP TABLE token_revocations;
