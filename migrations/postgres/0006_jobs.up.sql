-- The locks of all tables that change, at once. Statements of running replicas may hold them in another
-- order: the wait is shorter than deadlock_timeout, so that this gives way and no request fails.
SET LOCAL lock_timeout = '500ms';
DO $$
BEGIN
    FOR attempt IN 1..40 LOOP
        BEGIN
            LOCK TABLE todos IN ACCESS EXCLUSIVE MODE;
            RETURN;
        EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
            PERFORM pg_sleep(0.5);
        END;
    END LOOP;
    RAISE EXCEPTION 'other transactions hold locks on todos: end them, and migrate again'
        USING ERRCODE = 'lock_not_available';
END $$;
SET LOCAL lock_timeout = 0;

-- A row's trigger, as for updates: for one row it takes half the time of a statement's, which has to read
-- its rows from a transition table. A copy and an import switch it off: in one transaction, each update of
-- a counter reads all of its earlier versions.
DROP TRIGGER todos_count_inserted ON todos;
DROP FUNCTION todos_count_inserted();
CREATE FUNCTION todos_inserted() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    WITH counted AS (
        UPDATE todo_counts AS counts
        SET pending = counts.pending + 1 - NEW.completed::int,
            completed = counts.completed + NEW.completed::int, seq = counts.seq + 1
        WHERE user_id = NEW.user_id RETURNING user_id, seq)
    INSERT INTO changes (user_id, seq, kind, todo_id) SELECT user_id, seq, 1, NEW.id FROM counted;
    RETURN NULL;
END $$;
CREATE TRIGGER todos_inserted AFTER INSERT ON todos FOR EACH ROW EXECUTE FUNCTION todos_inserted();

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

-- The long answers of a user, whose size has a limit.
CREATE INDEX idempotency_long ON idempotency (user_id, octet_length(answer)) WHERE octet_length(answer) > 8192;

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
        -- to lock rows of the trash before they are restored
        EXECUTE format('GRANT UPDATE (deleted_at) ON trash TO %s', writer);
    END LOOP;
END $$;
