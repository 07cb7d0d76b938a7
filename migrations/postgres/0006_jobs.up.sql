-- The background work of all processes. A process takes a job by its lease: the others skip the job until
-- `leased_until`, so a job whose process has ended is due again then.
CREATE TABLE jobs (
    kind         text        COLLATE "C" NOT NULL CHECK (char_length(kind) BETWEEN 1 AND 50),
    -- one job of a kind for each key; empty for the work of a whole database
    key          text        COLLATE "C" NOT NULL DEFAULT '' CHECK (char_length(key) <= 255),
    run_at       timestamptz NOT NULL,
    -- the failed attempts since the last success, and a running one
    attempts     bigint      NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    -- random for each attempt: a late process does not overwrite what a later attempt has stored
    lease        uuid,
    leased_until timestamptz,
    PRIMARY KEY (kind, key),
    CHECK ((lease IS NULL) = (leased_until IS NULL))
);
CREATE INDEX jobs_by_time ON jobs (run_at);

-- A role that may delete todos is one that serves requests.
DO $$
DECLARE
    writer text;
BEGIN
    FOR writer IN
        SELECT DISTINCT CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END
        FROM pg_class, aclexplode(relacl)
        WHERE pg_class.oid = CAST('todos' AS regclass) AND privilege_type = 'DELETE' AND grantee <> relowner
    LOOP
        EXECUTE format('GRANT SELECT, INSERT, UPDATE ON jobs TO %s', writer);
    END LOOP;
END $$;
