DROP INDEX idempotency_long;
DROP TABLE jobs;
