DROP TABLE audit_base;
