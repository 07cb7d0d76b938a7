-- Every credential is a row here; its id is the one that the credential names, or its hash.
ALTER TABLE sessions ADD COLUMN kind TEXT NOT NULL DEFAULT 'password'
    CHECK (kind IN ('password', 'oauth', 'external', 'key'));
-- the name of a key, or the program that logged in
ALTER TABLE sessions ADD COLUMN label TEXT CHECK (length(label) <= 200);
-- the address that logged in
ALTER TABLE sessions ADD COLUMN client TEXT CHECK (length(client) <= 64);
-- a bit for each scope
ALTER TABLE sessions ADD COLUMN scopes INTEGER NOT NULL DEFAULT -1;
-- written now and then, for many sessions at once
ALTER TABLE sessions ADD COLUMN seen_at INTEGER;

ALTER TABLE users ADD COLUMN email_verified_at INTEGER;
-- A deleted account stays until its todos are gone: they are deleted in pieces.
ALTER TABLE users ADD COLUMN deleted_at INTEGER;
CREATE INDEX users_deleted ON users (deleted_at) WHERE deleted_at IS NOT NULL;

-- The action had to be one of two words. The slots expire in a minute.
DROP TABLE rate_limits;
CREATE TABLE rate_limits (
    action   TEXT    NOT NULL CHECK (length(action) BETWEEN 1 AND 20),
    client   TEXT    NOT NULL CHECK (length(client) BETWEEN 1 AND 64),
    slot     INTEGER NOT NULL CHECK (slot >= 0),
    taken_at INTEGER NOT NULL,
    -- 0 while the attempt still runs, 1 once it counts
    settled  INTEGER NOT NULL CHECK (settled IN (0, 1)),
    prefix56 TEXT,
    prefix48 TEXT,
    PRIMARY KEY (action, client, slot)
) STRICT, WITHOUT ROWID;
CREATE INDEX rate_limits_by_time ON rate_limits (taken_at);
CREATE INDEX rate_limits_by_prefix ON rate_limits (prefix48, action, taken_at) WHERE prefix48 IS NOT NULL;

-- Mails to send, and the links in sent ones: the id, sealed, is the link's token. A row is written in the
-- transaction that requires the mail. No foreign key: some mails outlive their user.
CREATE TABLE mails (
    id              BLOB    NOT NULL PRIMARY KEY CHECK (length(id) = 16),
    kind            TEXT    NOT NULL CHECK (length(kind) BETWEEN 1 AND 50),
    user_id         BLOB    CHECK (length(user_id) = 16),
    email           TEXT    NOT NULL CHECK (length(email) BETWEEN 3 AND 254),
    created_at      INTEGER NOT NULL,
    -- after which neither the mail is sent nor its link is valid
    expires_at      INTEGER NOT NULL CHECK (expires_at > created_at),
    used_at         INTEGER,
    sent_at         INTEGER,
    failed_at       INTEGER,
    attempts        INTEGER NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    next_attempt_at INTEGER,
    lease           BLOB    CHECK (length(lease) = 16),
    leased_until    INTEGER,
    -- the last answer of the mail server
    reply           TEXT    CHECK (length(reply) <= 500),
    CHECK ((lease IS NULL) = (leased_until IS NULL))
) STRICT, WITHOUT ROWID;
CREATE INDEX mails_to_send ON mails (coalesce(next_attempt_at, created_at))
    WHERE sent_at IS NULL AND failed_at IS NULL;
CREATE INDEX mails_by_address ON mails (email, kind, created_at);
CREATE INDEX mails_by_user ON mails (user_id) WHERE user_id IS NOT NULL;
CREATE INDEX mails_by_expiry ON mails (expires_at);
CREATE INDEX mails_by_sending ON mails (sent_at) WHERE sent_at IS NOT NULL;

-- A user has at most 100 sessions, keys not counted: a new one ends the oldest.
DROP TRIGGER sessions_limit;
CREATE TRIGGER sessions_limit AFTER INSERT ON sessions WHEN NEW.kind <> 'key' BEGIN
    DELETE FROM sessions WHERE user_id = NEW.user_id AND id IN (
        SELECT id FROM sessions WHERE user_id = NEW.user_id AND kind <> 'key'
        ORDER BY id = NEW.id DESC, created_at DESC, id DESC LIMIT -1 OFFSET 100);
END;

DROP TRIGGER users_cascade;
CREATE TRIGGER users_cascade AFTER DELETE ON users BEGIN
    DELETE FROM sessions WHERE user_id = OLD.id;
    DELETE FROM todos WHERE user_id = OLD.id;
    DELETE FROM todo_counts WHERE user_id = OLD.id;
    DELETE FROM changes WHERE user_id = OLD.id;
    DELETE FROM idempotency WHERE user_id = OLD.id;
    DELETE FROM trash WHERE user_id = OLD.id;
    DELETE FROM mails WHERE user_id = OLD.id;
END;

-- The views below are written to by one statement, whose SELECT checks that it may: with one writer,
-- nothing changes between the check and the trigger. A mail's id is NULL where no mail is sent.

-- A new account, its first session, and the mail with the link that verifies its address.
DROP VIEW signups;
CREATE VIEW signups AS
    SELECT users.id, users.email, users.name, users.password_hash, users.created_at,
           sessions.id AS session_id, sessions.expires_at, sessions.label, sessions.client, mails.id AS mail_id
    FROM users JOIN sessions ON sessions.user_id = users.id LEFT JOIN mails ON mails.user_id = users.id;
CREATE TRIGGER signups_insert INSTEAD OF INSERT ON signups BEGIN
    INSERT INTO users (id, email, name, password_hash, created_at)
    VALUES (NEW.id, NEW.email, NEW.name, NEW.password_hash, NEW.created_at);
    INSERT INTO sessions (id, user_id, created_at, expires_at, label, client)
    VALUES (NEW.session_id, NEW.id, NEW.created_at, NEW.expires_at, NEW.label, NEW.client);
    INSERT INTO mails (id, kind, user_id, email, created_at, expires_at)
    SELECT NEW.mail_id, 'verify', NEW.id, NEW.email, NEW.created_at, NEW.created_at + 86400000000
    WHERE NEW.mail_id IS NOT NULL;
END;

-- A new session or key of a user whose password is `password_hash`, if that is given.
CREATE VIEW new_sessions AS
    SELECT sessions.id, sessions.user_id, sessions.kind, sessions.label, sessions.client, sessions.scopes,
           sessions.created_at, sessions.expires_at, users.password_hash, 0 AS key_limit, mails.id AS mail_id
    FROM users JOIN sessions ON sessions.user_id = users.id LEFT JOIN mails ON mails.user_id = users.id;
CREATE TRIGGER new_sessions_insert INSTEAD OF INSERT ON new_sessions BEGIN
    INSERT INTO sessions (id, user_id, kind, label, client, scopes, created_at, expires_at)
    VALUES (NEW.id, NEW.user_id, NEW.kind, NEW.label, NEW.client, NEW.scopes, NEW.created_at, NEW.expires_at);
    INSERT INTO mails (id, kind, user_id, email, created_at, expires_at)
    SELECT NEW.mail_id, 'key_created', id, email, NEW.created_at, NEW.created_at + 86400000000
    FROM users WHERE id = NEW.user_id AND NEW.mail_id IS NOT NULL;
END;

-- A new password in place of `old_hash`: all sessions end, keys too if `end_keys`, and one begins.
CREATE VIEW password_changes AS
    SELECT users.id AS user_id, users.password_hash AS old_hash, users.password_hash AS new_hash,
           FALSE AS end_keys, sessions.id AS session_id, sessions.label, sessions.client,
           sessions.created_at AS changed_at, sessions.expires_at, mails.id AS mail_id
    FROM users JOIN sessions ON sessions.user_id = users.id LEFT JOIN mails ON mails.user_id = users.id;
CREATE TRIGGER password_changes_insert INSTEAD OF INSERT ON password_changes BEGIN
    UPDATE users SET password_hash = NEW.new_hash WHERE id = NEW.user_id;
    DELETE FROM sessions WHERE user_id = NEW.user_id AND (NEW.end_keys OR kind <> 'key');
    UPDATE mails SET used_at = NEW.changed_at WHERE used_at IS NULL AND (
        (kind = 'change' AND user_id = NEW.user_id)
        OR (kind = 'reset' AND email = (SELECT email FROM users WHERE id = NEW.user_id)));
    INSERT INTO sessions (id, user_id, created_at, expires_at, label, client)
    VALUES (NEW.session_id, NEW.user_id, NEW.changed_at, NEW.expires_at, NEW.label, NEW.client);
    INSERT INTO mails (id, kind, user_id, email, created_at, expires_at)
    SELECT NEW.mail_id, 'password_changed', id, email, NEW.changed_at, NEW.changed_at + 86400000000
    FROM users WHERE id = NEW.user_id AND NEW.mail_id IS NOT NULL;
END;

-- A new password by the link in the mail `mail_id`: all sessions and keys end. The link proves that the
-- address is the user's.
CREATE VIEW password_resets AS
    SELECT mails.id AS mail_id, users.id AS user_id, users.password_hash, mails.used_at AS changed_at,
           mails.id AS notice_id
    FROM mails JOIN users ON users.email = mails.email WHERE mails.kind = 'reset';
CREATE TRIGGER password_resets_insert INSTEAD OF INSERT ON password_resets BEGIN
    UPDATE users SET password_hash = NEW.password_hash,
        email_verified_at = coalesce(email_verified_at, NEW.changed_at) WHERE id = NEW.user_id;
    DELETE FROM sessions WHERE user_id = NEW.user_id;
    UPDATE mails SET used_at = NEW.changed_at WHERE used_at IS NULL AND (
        (kind = 'change' AND user_id = NEW.user_id)
        OR (kind = 'reset' AND email = (SELECT email FROM users WHERE id = NEW.user_id)));
    INSERT INTO mails (id, kind, user_id, email, created_at, expires_at)
    SELECT NEW.notice_id, 'password_changed', id, email, NEW.changed_at, NEW.changed_at + 86400000000
    FROM users WHERE id = NEW.user_id AND NEW.notice_id IS NOT NULL;
END;

-- An address that is confirmed by the link in the mail `mail_id`: the present one (`verify`) or a new one
-- (`change`). The notice goes to the address before.
CREATE VIEW email_confirmations AS
    SELECT mails.id AS mail_id, users.id AS user_id, mails.used_at AS confirmed_at, mails.id AS notice_id
    FROM mails JOIN users ON users.id = mails.user_id WHERE mails.kind IN ('verify', 'change');
CREATE TRIGGER email_confirmations_insert INSTEAD OF INSERT ON email_confirmations BEGIN
    INSERT INTO mails (id, kind, user_id, email, created_at, expires_at)
    SELECT NEW.notice_id, 'email_changed', users.id, users.email, NEW.confirmed_at,
           NEW.confirmed_at + 86400000000
    FROM users JOIN mails ON mails.user_id = users.id
    WHERE mails.id = NEW.mail_id AND mails.kind = 'change' AND users.email <> mails.email
      AND NEW.notice_id IS NOT NULL;
    UPDATE users SET email = (SELECT email FROM mails WHERE id = NEW.mail_id),
        email_verified_at = NEW.confirmed_at WHERE id = NEW.user_id;
    UPDATE mails SET used_at = NEW.confirmed_at WHERE used_at IS NULL AND (id = NEW.mail_id
        OR (user_id = NEW.user_id AND kind = 'change'
            AND EXISTS (SELECT 1 FROM mails WHERE id = NEW.mail_id AND kind = 'change')));
END;

-- An account that its owner deletes. The address is free at once, and no credential is left.
CREATE VIEW account_deletions AS
    SELECT users.id AS user_id, users.password_hash, users.deleted_at, mails.id AS notice_id
    FROM users LEFT JOIN mails ON mails.user_id = users.id;
CREATE TRIGGER account_deletions_insert INSTEAD OF INSERT ON account_deletions BEGIN
    DELETE FROM sessions WHERE user_id = NEW.user_id;
    DELETE FROM mails WHERE user_id = NEW.user_id
        OR (kind = 'reset' AND email = (SELECT email FROM users WHERE id = NEW.user_id));
    INSERT INTO mails (id, kind, email, created_at, expires_at)
    SELECT NEW.notice_id, 'account_deleted', email, NEW.deleted_at, NEW.deleted_at + 86400000000
    FROM users WHERE id = NEW.user_id AND NEW.notice_id IS NOT NULL;
    UPDATE users SET deleted_at = NEW.deleted_at, email = lower(hex(id)) || '@users.invalid', name = 'deleted',
        password_hash = '!', email_verified_at = NULL WHERE id = NEW.user_id;
END;
