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

-- Every credential is a row here; its id is the one that the credential names, or its hash. NOT VALID, since
-- the rows of now have the defaults: no row is read.
ALTER TABLE sessions
    ADD COLUMN kind    text   COLLATE "C" NOT NULL DEFAULT 'password',
    -- the name of a key, or the program that logged in
    ADD COLUMN label   text,
    -- the address that logged in
    ADD COLUMN client  text   COLLATE "C",
    -- a bit for each scope
    ADD COLUMN scopes  bigint NOT NULL DEFAULT -1,
    -- written now and then, for many sessions at once
    ADD COLUMN seen_at timestamptz,
    ADD CONSTRAINT sessions_kind CHECK (kind IN ('password', 'oauth', 'external', 'key')) NOT VALID,
    ADD CONSTRAINT sessions_label CHECK (char_length(label) <= 200) NOT VALID,
    ADD CONSTRAINT sessions_client CHECK (char_length(client) <= 64) NOT VALID;

-- A deleted account stays until its todos are gone: they are deleted in pieces.
ALTER TABLE users ADD COLUMN email_verified_at timestamptz, ADD COLUMN deleted_at timestamptz;
CREATE INDEX users_deleted ON users (deleted_at) WHERE deleted_at IS NOT NULL;

-- The action had to be one of two words.
ALTER TABLE rate_limits DROP CONSTRAINT rate_limits_action_check,
    ADD CONSTRAINT rate_limits_action CHECK (char_length(action) BETWEEN 1 AND 20) NOT VALID;

-- Mails to send, and the links in sent ones: the id, sealed, is the link's token. A row is written in the
-- transaction that requires the mail. No foreign key: some mails outlive their user.
CREATE TABLE mails (
    id              uuid        PRIMARY KEY,
    kind            text        COLLATE "C" NOT NULL CHECK (char_length(kind) BETWEEN 1 AND 50),
    user_id         uuid,
    email           text        COLLATE "C" NOT NULL CHECK (char_length(email) BETWEEN 3 AND 254),
    created_at      timestamptz NOT NULL,
    -- after which neither the mail is sent nor its link is valid
    expires_at      timestamptz NOT NULL CHECK (expires_at > created_at),
    used_at         timestamptz,
    sent_at         timestamptz,
    failed_at       timestamptz,
    attempts        bigint      NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    next_attempt_at timestamptz,
    lease           uuid,
    leased_until    timestamptz,
    -- the last answer of the mail server
    reply           text        CHECK (char_length(reply) <= 500),
    CHECK ((lease IS NULL) = (leased_until IS NULL))
);
CREATE INDEX mails_to_send ON mails (coalesce(next_attempt_at, created_at))
    WHERE sent_at IS NULL AND failed_at IS NULL;
CREATE INDEX mails_by_address ON mails (email, kind, created_at);
CREATE INDEX mails_by_user ON mails (user_id) WHERE user_id IS NOT NULL;
CREATE INDEX mails_by_expiry ON mails (expires_at);
CREATE INDEX mails_by_sending ON mails (sent_at) WHERE sent_at IS NOT NULL;

-- A user has at most 100 sessions, keys not counted: a new one ends the oldest.
CREATE OR REPLACE FUNCTION sessions_limit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM 1 FROM users WHERE id = NEW.user_id FOR NO KEY UPDATE;
    DELETE FROM sessions WHERE user_id = NEW.user_id AND id IN (
        SELECT id FROM sessions WHERE user_id = NEW.user_id AND kind <> 'key'
        ORDER BY id = NEW.id DESC, created_at DESC, id DESC OFFSET 100);
    RETURN NULL;
END $$;
DROP TRIGGER sessions_limit ON sessions;
CREATE TRIGGER sessions_limit AFTER INSERT ON sessions FOR EACH ROW
    WHEN (NEW.kind <> 'key') EXECUTE FUNCTION sessions_limit();

CREATE OR REPLACE FUNCTION users_cascade() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM sessions WHERE user_id = OLD.id;
    DELETE FROM todos WHERE user_id = OLD.id;
    DELETE FROM todo_counts WHERE user_id = OLD.id;
    DELETE FROM changes WHERE user_id = OLD.id;
    DELETE FROM idempotency WHERE user_id = OLD.id;
    DELETE FROM trash WHERE user_id = OLD.id;
    DELETE FROM mails WHERE user_id = OLD.id;
    RETURN NULL;
END $$;

-- The views below are written to by one statement each. Its SELECT checks that it may, and the trigger
-- checks the same again once it has the user's row: a concurrent statement may have changed it meanwhile.
-- The row is returned if it took effect. A mail's id is NULL where no mail is sent.

-- A new account, its first session, and the mail with the link that verifies its address.
CREATE OR REPLACE VIEW signups AS
    SELECT users.id, users.email, users.name, users.password_hash, users.created_at,
           sessions.id AS session_id, sessions.expires_at, sessions.label, sessions.client, mails.id AS mail_id
    FROM users JOIN sessions ON sessions.user_id = users.id LEFT JOIN mails ON mails.user_id = users.id;
CREATE OR REPLACE FUNCTION signups_insert() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO users (id, email, name, password_hash, created_at)
    VALUES (NEW.id, NEW.email, NEW.name, NEW.password_hash, NEW.created_at);
    INSERT INTO sessions (id, user_id, created_at, expires_at, label, client)
    VALUES (NEW.session_id, NEW.id, NEW.created_at, NEW.expires_at, NEW.label, NEW.client);
    IF NEW.mail_id IS NOT NULL THEN
        INSERT INTO mails (id, kind, user_id, email, created_at, expires_at)
        VALUES (NEW.mail_id, 'verify', NEW.id, NEW.email, NEW.created_at, NEW.created_at + interval '24 hours');
    END IF;
    RETURN NEW;
END $$;

-- A new session or key of a user whose password is `password_hash`, if that is given. A login that has
-- checked a password waits here for a change of it, and the change for the login.
CREATE VIEW new_sessions AS
    SELECT sessions.id, sessions.user_id, sessions.kind, sessions.label, sessions.client, sessions.scopes,
           sessions.created_at, sessions.expires_at, users.password_hash, CAST(0 AS bigint) AS key_limit,
           mails.id AS mail_id
    FROM users JOIN sessions ON sessions.user_id = users.id LEFT JOIN mails ON mails.user_id = users.id;
CREATE FUNCTION new_sessions_insert() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    address text;
BEGIN
    SELECT email INTO address FROM users WHERE id = NEW.user_id AND deleted_at IS NULL
        AND (NEW.password_hash IS NULL OR password_hash = NEW.password_hash) FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    IF NEW.kind = 'key' AND NEW.key_limit <= (
        SELECT count(*) FROM sessions WHERE user_id = NEW.user_id AND kind = 'key' AND expires_at > NEW.created_at)
    THEN
        RETURN NULL;
    END IF;
    INSERT INTO sessions (id, user_id, kind, label, client, scopes, created_at, expires_at)
    VALUES (NEW.id, NEW.user_id, NEW.kind, NEW.label, NEW.client, NEW.scopes, NEW.created_at, NEW.expires_at);
    IF NEW.mail_id IS NOT NULL THEN
        INSERT INTO mails (id, kind, user_id, email, created_at, expires_at)
        VALUES (NEW.mail_id, 'key_created', NEW.user_id, address, NEW.created_at,
                NEW.created_at + interval '24 hours');
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER new_sessions_insert INSTEAD OF INSERT ON new_sessions
    FOR EACH ROW EXECUTE FUNCTION new_sessions_insert();

-- A new password in place of `old_hash`: all sessions end, keys too if `end_keys`, and one begins.
CREATE VIEW password_changes AS
    SELECT users.id AS user_id, users.password_hash AS old_hash, users.password_hash AS new_hash,
           FALSE AS end_keys, sessions.id AS session_id, sessions.label, sessions.client,
           sessions.created_at AS changed_at, sessions.expires_at, mails.id AS mail_id
    FROM users JOIN sessions ON sessions.user_id = users.id LEFT JOIN mails ON mails.user_id = users.id;
CREATE FUNCTION password_changes_insert() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    address text;
BEGIN
    UPDATE users SET password_hash = NEW.new_hash
    WHERE id = NEW.user_id AND password_hash = NEW.old_hash AND deleted_at IS NULL RETURNING email INTO address;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    DELETE FROM sessions WHERE user_id = NEW.user_id AND (NEW.end_keys OR kind <> 'key');
    UPDATE mails SET used_at = NEW.changed_at WHERE used_at IS NULL
        AND ((kind = 'change' AND user_id = NEW.user_id) OR (kind = 'reset' AND email = address));
    INSERT INTO sessions (id, user_id, created_at, expires_at, label, client)
    VALUES (NEW.session_id, NEW.user_id, NEW.changed_at, NEW.expires_at, NEW.label, NEW.client);
    IF NEW.mail_id IS NOT NULL THEN
        INSERT INTO mails (id, kind, user_id, email, created_at, expires_at)
        VALUES (NEW.mail_id, 'password_changed', NEW.user_id, address, NEW.changed_at,
                NEW.changed_at + interval '24 hours');
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER password_changes_insert INSTEAD OF INSERT ON password_changes
    FOR EACH ROW EXECUTE FUNCTION password_changes_insert();

-- A new password by the link in the mail `mail_id`: all sessions and keys end. The link proves that the
-- address is the user's.
CREATE VIEW password_resets AS
    SELECT mails.id AS mail_id, users.id AS user_id, users.password_hash, mails.used_at AS changed_at,
           mails.id AS notice_id
    FROM mails JOIN users ON users.email = mails.email WHERE mails.kind = 'reset';
CREATE FUNCTION password_resets_insert() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    address text;
BEGIN
    SELECT email INTO address FROM users WHERE id = NEW.user_id AND deleted_at IS NULL FOR NO KEY UPDATE;
    -- Of two uses of one link, the later one finds the row used.
    UPDATE mails SET used_at = NEW.changed_at
    WHERE id = NEW.mail_id AND kind = 'reset' AND email = address AND used_at IS NULL
      AND expires_at > NEW.changed_at;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    UPDATE users SET password_hash = NEW.password_hash,
        email_verified_at = coalesce(email_verified_at, NEW.changed_at) WHERE id = NEW.user_id;
    DELETE FROM sessions WHERE user_id = NEW.user_id;
    UPDATE mails SET used_at = NEW.changed_at WHERE used_at IS NULL
        AND ((kind = 'change' AND user_id = NEW.user_id) OR (kind = 'reset' AND email = address));
    IF NEW.notice_id IS NOT NULL THEN
        INSERT INTO mails (id, kind, user_id, email, created_at, expires_at)
        VALUES (NEW.notice_id, 'password_changed', NEW.user_id, address, NEW.changed_at,
                NEW.changed_at + interval '24 hours');
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER password_resets_insert INSTEAD OF INSERT ON password_resets
    FOR EACH ROW EXECUTE FUNCTION password_resets_insert();

-- An address that is confirmed by the link in the mail `mail_id`: the present one (`verify`) or a new one
-- (`change`). The notice goes to the address before.
CREATE VIEW email_confirmations AS
    SELECT mails.id AS mail_id, users.id AS user_id, mails.used_at AS confirmed_at, mails.id AS notice_id
    FROM mails JOIN users ON users.id = mails.user_id WHERE mails.kind IN ('verify', 'change');
CREATE FUNCTION email_confirmations_insert() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    address text;
    mail mails%ROWTYPE;
BEGIN
    SELECT email INTO address FROM users WHERE id = NEW.user_id AND deleted_at IS NULL FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    UPDATE mails SET used_at = NEW.confirmed_at
    WHERE id = NEW.mail_id AND user_id = NEW.user_id AND (kind = 'change' OR (kind = 'verify' AND email = address))
      AND used_at IS NULL AND expires_at > NEW.confirmed_at RETURNING * INTO mail;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    UPDATE users SET email = mail.email, email_verified_at = NEW.confirmed_at WHERE id = NEW.user_id;
    IF mail.kind = 'change' THEN
        UPDATE mails SET used_at = NEW.confirmed_at
        WHERE user_id = NEW.user_id AND kind = 'change' AND used_at IS NULL;
        IF NEW.notice_id IS NOT NULL AND address <> mail.email THEN
            INSERT INTO mails (id, kind, user_id, email, created_at, expires_at)
            VALUES (NEW.notice_id, 'email_changed', NEW.user_id, address, NEW.confirmed_at,
                    NEW.confirmed_at + interval '24 hours');
        END IF;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER email_confirmations_insert INSTEAD OF INSERT ON email_confirmations
    FOR EACH ROW EXECUTE FUNCTION email_confirmations_insert();

-- An account that its owner deletes. The address is free at once, and no credential is left.
CREATE VIEW account_deletions AS
    SELECT users.id AS user_id, users.password_hash, users.deleted_at, mails.id AS notice_id
    FROM users LEFT JOIN mails ON mails.user_id = users.id;
CREATE FUNCTION account_deletions_insert() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    address text;
BEGIN
    SELECT email INTO address FROM users WHERE id = NEW.user_id AND deleted_at IS NULL
        AND password_hash = NEW.password_hash FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    UPDATE users SET deleted_at = NEW.deleted_at, name = 'deleted', password_hash = '!', email_verified_at = NULL,
        email = replace(CAST(id AS text), '-', '') || '@users.invalid' WHERE id = NEW.user_id;
    DELETE FROM sessions WHERE user_id = NEW.user_id;
    DELETE FROM mails WHERE user_id = NEW.user_id OR (kind = 'reset' AND email = address);
    IF NEW.notice_id IS NOT NULL THEN
        INSERT INTO mails (id, kind, email, created_at, expires_at)
        VALUES (NEW.notice_id, 'account_deleted', address, NEW.deleted_at, NEW.deleted_at + interval '24 hours');
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER account_deletions_insert INSTEAD OF INSERT ON account_deletions
    FOR EACH ROW EXECUTE FUNCTION account_deletions_insert();

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
        EXECUTE format('GRANT UPDATE (email, email_verified_at, deleted_at), DELETE ON users TO %s', writer);
        EXECUTE format('GRANT UPDATE (seen_at) ON sessions TO %s', writer);
        EXECUTE format('GRANT DELETE ON todo_counts TO %s', writer);
        EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON mails TO %s', writer);
        EXECUTE format('GRANT SELECT, INSERT ON signups, new_sessions, password_changes, password_resets, '
                       'email_confirmations, account_deletions TO %s', writer);
    END LOOP;
END $$;
