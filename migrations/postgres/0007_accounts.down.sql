-- The locks of all tables that change, at once. Statements of running replicas may hold them in another
-- order: the wait is shorter than deadlock_timeout, so that this gives way and no request fails.
SET LOCAL lock_timeout = '500ms';
DO $$
BEGIN
    FOR attempt IN 1..40 LOOP
        BEGIN
            LOCK TABLE users, sessions, rate_limits IN ACCESS EXCLUSIVE MODE;
            RETURN;
        EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
            PERFORM pg_sleep(0.5);
        END;
    END LOOP;
    RAISE EXCEPTION 'other transactions hold locks on users, sessions or rate_limits: end them, and migrate again'
        USING ERRCODE = 'lock_not_available';
END $$;
SET LOCAL lock_timeout = 0;

DROP VIEW account_deletions;
DROP FUNCTION account_deletions_insert();
DROP VIEW email_confirmations;
DROP FUNCTION email_confirmations_insert();
DROP VIEW password_resets;
DROP FUNCTION password_resets_insert();
DROP VIEW password_changes;
DROP FUNCTION password_changes_insert();
DROP VIEW new_sessions;
DROP FUNCTION new_sessions_insert();
CREATE OR REPLACE FUNCTION users_cascade() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM sessions WHERE user_id = OLD.id;
    DELETE FROM todos WHERE user_id = OLD.id;
    DELETE FROM todo_counts WHERE user_id = OLD.id;
    DELETE FROM changes WHERE user_id = OLD.id;
    DELETE FROM idempotency WHERE user_id = OLD.id;
    DELETE FROM trash WHERE user_id = OLD.id;
    RETURN NULL;
END $$;
-- The version before has sessions of logins only, and no half-deleted account.
DELETE FROM sessions WHERE kind <> 'password';
DELETE FROM users WHERE deleted_at IS NOT NULL;
DELETE FROM rate_limits WHERE action NOT IN ('login', 'signup');

-- A view cannot lose columns: it is made again, with the rights on it.
CREATE FUNCTION signups_before() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    rights aclitem[] = (SELECT relacl FROM pg_class WHERE oid = CAST('signups' AS regclass));
    writer record;
BEGIN
    DROP VIEW signups;
    CREATE VIEW signups AS
        SELECT users.id, users.email, users.name, users.password_hash, users.created_at,
               sessions.id AS session_id, sessions.expires_at
        FROM users JOIN sessions ON sessions.user_id = users.id;
    CREATE TRIGGER signups_insert INSTEAD OF INSERT ON signups
        FOR EACH ROW EXECUTE FUNCTION signups_insert();
    FOR writer IN
        SELECT CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END AS name,
               privilege_type AS verb
        FROM aclexplode(rights), pg_class
        WHERE pg_class.oid = CAST('signups' AS regclass) AND grantee <> relowner
    LOOP
        EXECUTE format('GRANT %s ON signups TO %s', writer.verb, writer.name);
    END LOOP;
END $$;
CREATE OR REPLACE FUNCTION signups_insert() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO users (id, email, name, password_hash, created_at)
    VALUES (NEW.id, NEW.email, NEW.name, NEW.password_hash, NEW.created_at);
    INSERT INTO sessions (id, user_id, created_at, expires_at)
    VALUES (NEW.session_id, NEW.id, NEW.created_at, NEW.expires_at);
    RETURN NEW;
END $$;
SELECT signups_before();
DROP FUNCTION signups_before();
DROP TABLE mails;

CREATE OR REPLACE FUNCTION sessions_limit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM 1 FROM users WHERE id = NEW.user_id FOR NO KEY UPDATE;
    DELETE FROM sessions WHERE user_id = NEW.user_id AND id IN (
        SELECT id FROM sessions WHERE user_id = NEW.user_id
        ORDER BY id = NEW.id DESC, created_at DESC, id DESC OFFSET 100);
    RETURN NULL;
END $$;
DROP TRIGGER sessions_limit ON sessions;
CREATE TRIGGER sessions_limit AFTER INSERT ON sessions FOR EACH ROW EXECUTE FUNCTION sessions_limit();
ALTER TABLE sessions DROP COLUMN kind, DROP COLUMN label, DROP COLUMN client, DROP COLUMN scopes,
    DROP COLUMN seen_at;
DROP INDEX users_deleted;
ALTER TABLE users DROP COLUMN email_verified_at, DROP COLUMN deleted_at;
ALTER TABLE rate_limits DROP CONSTRAINT rate_limits_action,
    ADD CONSTRAINT rate_limits_action_check CHECK (action IN ('login', 'signup'));
