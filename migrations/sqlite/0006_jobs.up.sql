-- The background work of all processes. A process takes a job by its lease: the others skip the job until
-- `leased_until`, so a job whose process has ended is due again then.
CREATE TABLE jobs (
    kind         TEXT    NOT NULL CHECK (length(kind) BETWEEN 1 AND 50),
    -- one job of a kind for each key; empty for the work of a whole database
    key          TEXT    NOT NULL DEFAULT '' CHECK (length(key) <= 255),
    run_at       INTEGER NOT NULL,
    -- the failed attempts since the last success, and a running one
    attempts     INTEGER NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    -- random for each attempt: a late process does not overwrite what a later attempt has stored
    lease        BLOB    CHECK (length(lease) = 16),
    leased_until INTEGER,
    PRIMARY KEY (kind, key),
    CHECK ((lease IS NULL) = (leased_until IS NULL))
) STRICT, WITHOUT ROWID;
CREATE INDEX jobs_by_time ON jobs (run_at);

-- The long answers of a user, whose size has a limit. A function of every SQLite: an older one, as of a
-- system's `sqlite3`, could not open the file with `octet_length`.
CREATE INDEX idempotency_long ON idempotency (user_id, length(CAST(answer AS BLOB)))
    WHERE length(CAST(answer AS BLOB)) > 8192;
