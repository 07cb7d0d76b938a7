ALTER TABLE users ADD COLUMN time_zone TEXT CHECK (length(time_zone) BETWEEN 1 AND 64);
ALTER TABLE users ADD COLUMN reminder_mail INTEGER NOT NULL DEFAULT 0 CHECK (reminder_mail IN (0, 1));

-- Users of other systems: the user that `issuer` calls `subject`.
CREATE TABLE identities (
    id             BLOB    NOT NULL PRIMARY KEY CHECK (length(id) = 16),
    issuer         TEXT    NOT NULL CHECK (length(issuer) BETWEEN 1 AND 500),
    subject        TEXT    NOT NULL CHECK (length(subject) BETWEEN 1 AND 255),
    user_id        BLOB    NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    -- as the issuer last stated them
    email          TEXT    CHECK (length(email) BETWEEN 3 AND 254),
    email_verified INTEGER NOT NULL CHECK (email_verified IN (0, 1)),
    name           TEXT    CHECK (length(name) BETWEEN 2 AND 100),
    created_at     INTEGER NOT NULL,
    -- Tokens issued until then are not accepted.
    not_before     INTEGER,
    UNIQUE (issuer, subject)
) STRICT, WITHOUT ROWID;
CREATE INDEX identities_by_user ON identities (user_id);

-- The sessions of an identity end with it.
ALTER TABLE sessions ADD COLUMN identity_id BLOB CHECK (length(identity_id) = 16);

-- Tokens of other issuers whose sessions have ended here, until they expire by themselves.
CREATE TABLE revoked_tokens (
    id         BLOB    NOT NULL PRIMARY KEY CHECK (length(id) = 16),
    expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX revoked_tokens_by_expiry ON revoked_tokens (expires_at);
CREATE TRIGGER sessions_revoke AFTER DELETE ON sessions WHEN OLD.kind = 'external' BEGIN
    INSERT INTO revoked_tokens (id, expires_at) VALUES (OLD.id, OLD.expires_at) ON CONFLICT DO NOTHING;
END;

-- A sign-in with another provider that is complete but for the exchange of its code, once.
CREATE TABLE oauth_codes (
    id           BLOB    NOT NULL PRIMARY KEY CHECK (length(id) = 16),
    user_id      BLOB    NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    identity_id  BLOB    NOT NULL CHECK (length(identity_id) = 16),
    challenge    TEXT    NOT NULL CHECK (length(challenge) BETWEEN 1 AND 128),
    redirect_uri TEXT    NOT NULL CHECK (length(redirect_uri) BETWEEN 1 AND 2000),
    created_at   INTEGER NOT NULL,
    expires_at   INTEGER NOT NULL CHECK (expires_at > created_at)
) STRICT, WITHOUT ROWID;
CREATE INDEX oauth_codes_by_expiry ON oauth_codes (expires_at);
CREATE INDEX oauth_codes_by_user ON oauth_codes (user_id);

CREATE TRIGGER identities_delete AFTER DELETE ON identities BEGIN
    DELETE FROM oauth_codes WHERE user_id = OLD.user_id AND identity_id = OLD.id;
    DELETE FROM sessions WHERE user_id = OLD.user_id AND identity_id = OLD.id;
END;

-- A user has at most 100 sessions by tokens of other issuers, which live for minutes, and 100 others, keys
-- not counted: a new one ends the oldest of its kind.
DROP TRIGGER sessions_limit;
CREATE TRIGGER sessions_limit AFTER INSERT ON sessions WHEN NEW.kind <> 'key' BEGIN
    DELETE FROM sessions WHERE user_id = NEW.user_id AND id IN (
        SELECT id FROM sessions
        WHERE user_id = NEW.user_id AND kind <> 'key' AND (kind = 'external') = (NEW.kind = 'external')
        ORDER BY id = NEW.id DESC, created_at DESC, id DESC LIMIT -1 OFFSET 100);
END;

DROP TRIGGER users_cascade;
CREATE TRIGGER users_cascade AFTER DELETE ON users BEGIN
    DELETE FROM oauth_codes WHERE user_id = OLD.id;
    DELETE FROM identities WHERE user_id = OLD.id;
    DELETE FROM sessions WHERE user_id = OLD.id;
    DELETE FROM todos WHERE user_id = OLD.id;
    DELETE FROM todo_counts WHERE user_id = OLD.id;
    DELETE FROM changes WHERE user_id = OLD.id;
    DELETE FROM idempotency WHERE user_id = OLD.id;
    DELETE FROM trash WHERE user_id = OLD.id;
    DELETE FROM mails WHERE user_id = OLD.id;
END;

-- The views below are written to as those of the migration before: by one statement, whose SELECT checks that
-- it may.

DROP VIEW new_sessions;
CREATE VIEW new_sessions AS
    SELECT sessions.id, sessions.user_id, sessions.kind, sessions.label, sessions.client, sessions.scopes,
           sessions.created_at, sessions.expires_at, users.password_hash, 0 AS key_limit, mails.id AS mail_id,
           sessions.identity_id
    FROM users JOIN sessions ON sessions.user_id = users.id LEFT JOIN mails ON mails.user_id = users.id;
CREATE TRIGGER new_sessions_insert INSTEAD OF INSERT ON new_sessions BEGIN
    INSERT INTO sessions (id, user_id, kind, label, client, scopes, created_at, expires_at, identity_id)
    VALUES (NEW.id, NEW.user_id, NEW.kind, NEW.label, NEW.client, NEW.scopes, NEW.created_at, NEW.expires_at,
            NEW.identity_id);
    INSERT INTO mails (id, kind, user_id, email, created_at, expires_at)
    SELECT NEW.mail_id, 'key_created', id, email, NEW.created_at, NEW.created_at + 86400000000
    FROM users WHERE id = NEW.user_id AND NEW.mail_id IS NOT NULL;
END;

DROP TRIGGER password_changes_insert;
CREATE TRIGGER password_changes_insert INSTEAD OF INSERT ON password_changes BEGIN
    UPDATE users SET password_hash = NEW.new_hash WHERE id = NEW.user_id;
    DELETE FROM sessions WHERE user_id = NEW.user_id AND (NEW.end_keys OR kind <> 'key');
    UPDATE identities SET not_before = NEW.changed_at WHERE user_id = NEW.user_id;
    UPDATE mails SET used_at = NEW.changed_at WHERE used_at IS NULL AND (
        (kind = 'change' AND user_id = NEW.user_id)
        OR (kind = 'reset' AND email = (SELECT email FROM users WHERE id = NEW.user_id)));
    INSERT INTO sessions (id, user_id, created_at, expires_at, label, client)
    VALUES (NEW.session_id, NEW.user_id, NEW.changed_at, NEW.expires_at, NEW.label, NEW.client);
    INSERT INTO mails (id, kind, user_id, email, created_at, expires_at)
    SELECT NEW.mail_id, 'password_changed', id, email, NEW.changed_at, NEW.changed_at + 86400000000
    FROM users WHERE id = NEW.user_id AND NEW.mail_id IS NOT NULL;
END;

DROP TRIGGER password_resets_insert;
CREATE TRIGGER password_resets_insert INSTEAD OF INSERT ON password_resets BEGIN
    -- Before the address was confirmed, somebody else may have created the account.
    DELETE FROM identities WHERE user_id = NEW.user_id
        AND EXISTS (SELECT 1 FROM users WHERE id = NEW.user_id AND email_verified_at IS NULL);
    UPDATE identities SET not_before = NEW.changed_at WHERE user_id = NEW.user_id;
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

DROP TRIGGER account_deletions_insert;
CREATE TRIGGER account_deletions_insert INSTEAD OF INSERT ON account_deletions BEGIN
    DELETE FROM sessions WHERE user_id = NEW.user_id;
    DELETE FROM identities WHERE user_id = NEW.user_id;
    DELETE FROM mails WHERE user_id = NEW.user_id
        OR (kind = 'reset' AND email = (SELECT email FROM users WHERE id = NEW.user_id));
    INSERT INTO mails (id, kind, email, created_at, expires_at)
    SELECT NEW.notice_id, 'account_deleted', email, NEW.deleted_at, NEW.deleted_at + 86400000000
    FROM users WHERE id = NEW.user_id AND NEW.notice_id IS NOT NULL;
    UPDATE users SET deleted_at = NEW.deleted_at, email = lower(hex(id)) || '@users.invalid', name = 'deleted',
        password_hash = '!', email_verified_at = NULL WHERE id = NEW.user_id;
END;

-- The session of a token of another issuer, from its first request on, with its identity and user if they
-- are new. The statement gives the identity and the user that it found, or the new ones.
CREATE VIEW external_sessions AS
    SELECT sessions.id, identities.issuer, identities.subject, identities.email, identities.email_verified,
           identities.name, users.name AS user_name, FALSE AS links, identities.id AS identity_id,
           identities.id AS new_identity_id, users.id AS user_id, users.id AS new_user_id, mails.id AS notice_id,
           sessions.created_at AS issued_at, sessions.created_at, sessions.expires_at, sessions.label,
           sessions.client
    FROM identities JOIN users ON users.id = identities.user_id
    JOIN sessions ON sessions.user_id = users.id LEFT JOIN mails ON mails.user_id = users.id;
CREATE TRIGGER external_sessions_insert INSTEAD OF INSERT ON external_sessions BEGIN
    INSERT INTO mails (id, kind, user_id, email, created_at, expires_at)
    SELECT NEW.notice_id, 'identity_added', id, email, NEW.created_at, NEW.created_at + 86400000000
    FROM users WHERE id = NEW.user_id AND NEW.notice_id IS NOT NULL
      AND NOT EXISTS (SELECT 1 FROM identities WHERE id = NEW.identity_id);
    -- A verified address becomes that of a new user if no other user has it.
    INSERT INTO users (id, email, name, password_hash, created_at, email_verified_at)
    SELECT NEW.user_id, NEW.email, NEW.user_name, '!', NEW.created_at, NEW.created_at
    WHERE NEW.user_id = NEW.new_user_id AND NEW.email_verified
      AND NOT EXISTS (SELECT 1 FROM users WHERE email = NEW.email);
    INSERT INTO users (id, email, name, password_hash, created_at)
    SELECT NEW.user_id, lower(hex(NEW.user_id)) || '@users.invalid', NEW.user_name, '!', NEW.created_at
    WHERE NEW.user_id = NEW.new_user_id AND NOT EXISTS (SELECT 1 FROM users WHERE id = NEW.user_id);
    INSERT INTO identities (id, issuer, subject, user_id, email, email_verified, name, created_at)
    VALUES (NEW.identity_id, NEW.issuer, NEW.subject, NEW.user_id, NEW.email, NEW.email_verified, NEW.name,
            NEW.created_at)
    ON CONFLICT (id) DO UPDATE
    SET email = excluded.email, email_verified = excluded.email_verified, name = excluded.name;
    INSERT INTO sessions (id, user_id, kind, label, client, created_at, expires_at, identity_id)
    VALUES (NEW.id, NEW.user_id, 'external', NEW.label, NEW.client, NEW.created_at, NEW.expires_at,
            NEW.identity_id)
    ON CONFLICT (id) DO NOTHING;
END;

-- A sign-in with a provider: the code of its user, with the identity and the user if they are new.
CREATE VIEW oauth_sign_ins AS
    SELECT oauth_codes.id, identities.issuer, identities.subject, identities.email, identities.email_verified,
           identities.name, users.name AS user_name, FALSE AS links, identities.id AS identity_id,
           identities.id AS new_identity_id, users.id AS user_id, users.id AS new_user_id, mails.id AS notice_id,
           oauth_codes.challenge, oauth_codes.redirect_uri, oauth_codes.created_at, oauth_codes.expires_at
    FROM identities JOIN users ON users.id = identities.user_id
    JOIN oauth_codes ON oauth_codes.user_id = users.id LEFT JOIN mails ON mails.user_id = users.id;
CREATE TRIGGER oauth_sign_ins_insert INSTEAD OF INSERT ON oauth_sign_ins BEGIN
    INSERT INTO mails (id, kind, user_id, email, created_at, expires_at)
    SELECT NEW.notice_id, 'identity_added', id, email, NEW.created_at, NEW.created_at + 86400000000
    FROM users WHERE id = NEW.user_id AND NEW.notice_id IS NOT NULL
      AND NOT EXISTS (SELECT 1 FROM identities WHERE id = NEW.identity_id);
    -- A verified address becomes that of a new user if no other user has it.
    INSERT INTO users (id, email, name, password_hash, created_at, email_verified_at)
    SELECT NEW.user_id, NEW.email, NEW.user_name, '!', NEW.created_at, NEW.created_at
    WHERE NEW.user_id = NEW.new_user_id AND NEW.email_verified
      AND NOT EXISTS (SELECT 1 FROM users WHERE email = NEW.email);
    INSERT INTO users (id, email, name, password_hash, created_at)
    SELECT NEW.user_id, lower(hex(NEW.user_id)) || '@users.invalid', NEW.user_name, '!', NEW.created_at
    WHERE NEW.user_id = NEW.new_user_id AND NOT EXISTS (SELECT 1 FROM users WHERE id = NEW.user_id);
    INSERT INTO identities (id, issuer, subject, user_id, email, email_verified, name, created_at)
    VALUES (NEW.identity_id, NEW.issuer, NEW.subject, NEW.user_id, NEW.email, NEW.email_verified, NEW.name,
            NEW.created_at)
    ON CONFLICT (id) DO UPDATE
    SET email = excluded.email, email_verified = excluded.email_verified, name = excluded.name;
    INSERT INTO oauth_codes (id, user_id, identity_id, challenge, redirect_uri, created_at, expires_at)
    VALUES (NEW.id, NEW.user_id, NEW.identity_id, NEW.challenge, NEW.redirect_uri, NEW.created_at, NEW.expires_at);
END;

-- An identity that a user adds to the account.
CREATE VIEW new_identities AS
    SELECT identities.id, identities.issuer, identities.subject, identities.user_id, identities.email,
           identities.email_verified, identities.name, identities.created_at, 0 AS identity_limit,
           mails.id AS notice_id
    FROM identities LEFT JOIN mails ON mails.user_id = identities.user_id;
CREATE TRIGGER new_identities_insert INSTEAD OF INSERT ON new_identities BEGIN
    INSERT INTO identities (id, issuer, subject, user_id, email, email_verified, name, created_at)
    VALUES (NEW.id, NEW.issuer, NEW.subject, NEW.user_id, NEW.email, NEW.email_verified, NEW.name, NEW.created_at);
    INSERT INTO mails (id, kind, user_id, email, created_at, expires_at)
    SELECT NEW.notice_id, 'identity_added', id, email, NEW.created_at, NEW.created_at + 86400000000
    FROM users WHERE id = NEW.user_id AND NEW.notice_id IS NOT NULL;
END;

-- An identity that its user removes, unless the user could not log in without it. Its sessions end.
CREATE VIEW identity_removals AS
    SELECT identities.id, identities.user_id, identities.created_at AS removed_at, mails.id AS notice_id
    FROM identities LEFT JOIN mails ON mails.user_id = identities.user_id;
CREATE TRIGGER identity_removals_insert INSTEAD OF INSERT ON identity_removals BEGIN
    DELETE FROM identities WHERE id = NEW.id AND user_id = NEW.user_id;
    INSERT INTO mails (id, kind, user_id, email, created_at, expires_at)
    SELECT NEW.notice_id, 'identity_removed', id, email, NEW.removed_at, NEW.removed_at + 86400000000
    FROM users WHERE id = NEW.user_id AND NEW.notice_id IS NOT NULL;
END;
