DELETE FROM revisions WHERE name = 'data_keys';
DROP INDEX data_keys_active;
ALTER TABLE data_keys ADD CONSTRAINT data_keys_purpose_key UNIQUE (purpose);
ALTER TABLE data_keys DROP COLUMN retired_at;
