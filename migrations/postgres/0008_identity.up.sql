-- The locks of all tables that change, at once. Statements of running replicas may hold them in another
-- order: the wait is shorter than deadlock_timeout, so that this gives way and no request fails.
SET LOCAL lock_timeout = '500ms';
DO $$
BEGIN
    FOR attempt IN 1..40 LOOP
        BEGIN
            LOCK TABLE users, sessions IN ACCESS EXCLUSIVE MODE;
            RETURN;
        EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
            PERFORM pg_sleep(0.5);
        END;
    END LOOP;
    RAISE EXCEPTION 'other transactions hold locks on users or sessions: end them, and migrate again'
        USING ERRCODE = 'lock_not_available';
END $$;
SET LOCAL lock_timeout = 0;

ALTER TABLE users ADD COLUMN time_zone text COLLATE "C", ADD COLUMN reminder_mail boolean NOT NULL DEFAULT FALSE,
    ADD CONSTRAINT users_time_zone CHECK (char_length(time_zone) BETWEEN 1 AND 64) NOT VALID;

-- Users of other systems: the user that `issuer` calls `subject`.
CREATE TABLE identities (
    id             uuid        PRIMARY KEY,
    issuer         text        COLLATE "C" NOT NULL CHECK (char_length(issuer) BETWEEN 1 AND 500),
    subject        text        COLLATE "C" NOT NULL CHECK (char_length(subject) BETWEEN 1 AND 255),
    user_id        uuid        NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    -- as the issuer last stated them
    email          text        COLLATE "C" CHECK (char_length(email) BETWEEN 3 AND 254),
    email_verified boolean     NOT NULL,
    name           text        CHECK (char_length(name) BETWEEN 2 AND 100),
    created_at     timestamptz NOT NULL,
    -- Tokens issued until then are not accepted.
    not_before     timestamptz,
    UNIQUE (issuer, subject)
);
CREATE INDEX identities_by_user ON identities (user_id);

-- The sessions of an identity end with it.
ALTER TABLE sessions ADD COLUMN identity_id uuid;

-- Tokens of other issuers whose sessions have ended here, until they expire by themselves.
CREATE TABLE revoked_tokens (
    id         uuid        PRIMARY KEY,
    expires_at timestamptz NOT NULL
);
CREATE INDEX revoked_tokens_by_expiry ON revoked_tokens (expires_at);
CREATE FUNCTION sessions_revoke() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO revoked_tokens (id, expires_at) VALUES (OLD.id, OLD.expires_at) ON CONFLICT DO NOTHING;
    RETURN NULL;
END $$;
CREATE TRIGGER sessions_revoke AFTER DELETE ON sessions FOR EACH ROW
    WHEN (OLD.kind = 'external') EXECUTE FUNCTION sessions_revoke();

-- A sign-in with another provider that is complete but for the exchange of its code, once.
CREATE TABLE oauth_codes (
    id           uuid        PRIMARY KEY,
    user_id      uuid        NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    identity_id  uuid        NOT NULL,
    challenge    text        COLLATE "C" NOT NULL CHECK (char_length(challenge) BETWEEN 1 AND 128),
    redirect_uri text        NOT NULL CHECK (char_length(redirect_uri) BETWEEN 1 AND 2000),
    created_at   timestamptz NOT NULL,
    expires_at   timestamptz NOT NULL CHECK (expires_at > created_at)
);
CREATE INDEX oauth_codes_by_expiry ON oauth_codes (expires_at);
CREATE INDEX oauth_codes_by_user ON oauth_codes (user_id);

CREATE FUNCTION identities_delete() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM oauth_codes WHERE user_id = OLD.user_id AND identity_id = OLD.id;
    DELETE FROM sessions WHERE user_id = OLD.user_id AND identity_id = OLD.id;
    RETURN NULL;
END $$;
CREATE TRIGGER identities_delete AFTER DELETE ON identities FOR EACH ROW EXECUTE FUNCTION identities_delete();

-- A user has at most 100 sessions by tokens of other issuers, which live for minutes, and 100 others, keys
-- not counted: a new one ends the oldest of its kind.
CREATE OR REPLACE FUNCTION sessions_limit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM 1 FROM users WHERE id = NEW.user_id FOR NO KEY UPDATE;
    DELETE FROM sessions WHERE user_id = NEW.user_id AND id IN (
        SELECT id FROM sessions
        WHERE user_id = NEW.user_id AND kind <> 'key' AND (kind = 'external') = (NEW.kind = 'external')
        ORDER BY id = NEW.id DESC, created_at DESC, id DESC OFFSET 100);
    RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION users_cascade() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM oauth_codes WHERE user_id = OLD.id;
    DELETE FROM identities WHERE user_id = OLD.id;
    DELETE FROM sessions WHERE user_id = OLD.id;
    DELETE FROM todos WHERE user_id = OLD.id;
    DELETE FROM todo_counts WHERE user_id = OLD.id;
    DELETE FROM changes WHERE user_id = OLD.id;
    DELETE FROM idempotency WHERE user_id = OLD.id;
    DELETE FROM trash WHERE user_id = OLD.id;
    DELETE FROM mails WHERE user_id = OLD.id;
    RETURN NULL;
END $$;

-- The views below are written to as those of the migration before: by one statement, whose SELECT checks that
-- it may; the trigger checks again once it has the user's row.

CREATE OR REPLACE VIEW new_sessions AS
    SELECT sessions.id, sessions.user_id, sessions.kind, sessions.label, sessions.client, sessions.scopes,
           sessions.created_at, sessions.expires_at, users.password_hash, CAST(0 AS bigint) AS key_limit,
           mails.id AS mail_id, sessions.identity_id
    FROM users JOIN sessions ON sessions.user_id = users.id LEFT JOIN mails ON mails.user_id = users.id;
CREATE OR REPLACE FUNCTION new_sessions_insert() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    address text;
BEGIN
    SELECT email INTO address FROM users WHERE id = NEW.user_id AND deleted_at IS NULL
        AND (NEW.password_hash IS NULL OR password_hash = NEW.password_hash) FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    IF NEW.identity_id IS NOT NULL THEN
        PERFORM 1 FROM identities WHERE id = NEW.identity_id AND user_id = NEW.user_id FOR NO KEY UPDATE;
        IF NOT FOUND THEN
            RETURN NULL;
        END IF;
    END IF;
    IF NEW.kind = 'key' AND NEW.key_limit <= (
        SELECT count(*) FROM sessions WHERE user_id = NEW.user_id AND kind = 'key' AND expires_at > NEW.created_at)
    THEN
        RETURN NULL;
    END IF;
    INSERT INTO sessions (id, user_id, kind, label, client, scopes, created_at, expires_at, identity_id)
    VALUES (NEW.id, NEW.user_id, NEW.kind, NEW.label, NEW.client, NEW.scopes, NEW.created_at, NEW.expires_at,
            NEW.identity_id);
    IF NEW.mail_id IS NOT NULL THEN
        INSERT INTO mails (id, kind, user_id, email, created_at, expires_at)
        VALUES (NEW.mail_id, 'key_created', NEW.user_id, address, NEW.created_at,
                NEW.created_at + interval '24 hours');
    END IF;
    RETURN NEW;
END $$;

CREATE OR REPLACE FUNCTION password_changes_insert() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    address text;
BEGIN
    UPDATE users SET password_hash = NEW.new_hash
    WHERE id = NEW.user_id AND password_hash = NEW.old_hash AND deleted_at IS NULL RETURNING email INTO address;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    DELETE FROM sessions WHERE user_id = NEW.user_id AND (NEW.end_keys OR kind <> 'key');
    UPDATE identities SET not_before = NEW.changed_at WHERE user_id = NEW.user_id;
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

CREATE OR REPLACE FUNCTION password_resets_insert() RETURNS trigger LANGUAGE plpgsql AS $$
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
    -- Before the address was confirmed, somebody else may have created the account.
    DELETE FROM identities WHERE user_id = NEW.user_id
        AND EXISTS (SELECT 1 FROM users WHERE id = NEW.user_id AND email_verified_at IS NULL);
    UPDATE identities SET not_before = NEW.changed_at WHERE user_id = NEW.user_id;
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

CREATE OR REPLACE FUNCTION account_deletions_insert() RETURNS trigger LANGUAGE plpgsql AS $$
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
    DELETE FROM identities WHERE user_id = NEW.user_id;
    DELETE FROM mails WHERE user_id = NEW.user_id OR (kind = 'reset' AND email = address);
    IF NEW.notice_id IS NOT NULL THEN
        INSERT INTO mails (id, kind, email, created_at, expires_at)
        VALUES (NEW.notice_id, 'account_deleted', address, NEW.deleted_at, NEW.deleted_at + interval '24 hours');
    END IF;
    RETURN NEW;
END $$;

-- The identity of `subject`, with a new user if neither is known, and the lock of both. A verified address
-- becomes the user's if no other user has it; else none is found if `refuses_taken`. With `links`, the user
-- with this address, verified on both sides, is taken.
CREATE FUNCTION identity_of(
    of_issuer text, of_subject text, address text, is_verified boolean, given_name text, user_name text,
    links boolean, refuses_taken boolean, new_identity uuid, new_user uuid, notice uuid, seen_at timestamptz
) RETURNS identities LANGUAGE plpgsql AS $$
DECLARE
    identity identities;
    owner uuid;
BEGIN
    SELECT * INTO identity FROM identities WHERE issuer = of_issuer AND subject = of_subject;
    IF NOT FOUND THEN
        PERFORM pg_advisory_xact_lock(hashtextextended(of_issuer || ' ' || of_subject, 0));
        SELECT * INTO identity FROM identities WHERE issuer = of_issuer AND subject = of_subject;
    END IF;
    IF FOUND THEN
        PERFORM 1 FROM users WHERE id = identity.user_id AND deleted_at IS NULL FOR NO KEY UPDATE;
        IF NOT FOUND THEN
            RETURN NULL;
        END IF;
        UPDATE identities SET email = address, email_verified = is_verified, name = given_name
        WHERE id = identity.id AND user_id = identity.user_id RETURNING * INTO identity;
        RETURN identity;
    END IF;
    IF links AND is_verified THEN
        SELECT id INTO owner FROM users
        WHERE email = address AND email_verified_at IS NOT NULL AND deleted_at IS NULL FOR NO KEY UPDATE;
        IF FOUND AND notice IS NOT NULL THEN
            INSERT INTO mails (id, kind, user_id, email, created_at, expires_at)
            VALUES (notice, 'identity_added', owner, address, seen_at, seen_at + interval '24 hours');
        END IF;
    END IF;
    IF owner IS NULL AND is_verified THEN
        INSERT INTO users (id, email, name, password_hash, created_at, email_verified_at)
        VALUES (new_user, address, user_name, '!', seen_at, seen_at)
        ON CONFLICT (email) DO NOTHING RETURNING id INTO owner;
        IF owner IS NULL AND refuses_taken THEN
            RETURN NULL;
        END IF;
    END IF;
    IF owner IS NULL THEN
        INSERT INTO users (id, email, name, password_hash, created_at)
        VALUES (new_user, replace(CAST(new_user AS text), '-', '') || '@users.invalid', user_name, '!', seen_at)
        RETURNING id INTO owner;
    END IF;
    INSERT INTO identities (id, issuer, subject, user_id, email, email_verified, name, created_at)
    VALUES (new_identity, of_issuer, of_subject, owner, address, is_verified, given_name, seen_at)
    RETURNING * INTO identity;
    RETURN identity;
END $$;

-- The session of a token of another issuer, from its first request on, with its identity and user if they
-- are new. Both `user_id` and `new_user_id` are given: the one that was found, or the new one again.
CREATE VIEW external_sessions AS
    SELECT sessions.id, identities.issuer, identities.subject, identities.email, identities.email_verified,
           identities.name, users.name AS user_name, FALSE AS links, identities.id AS identity_id,
           identities.id AS new_identity_id, users.id AS user_id, users.id AS new_user_id, mails.id AS notice_id,
           sessions.created_at AS issued_at, sessions.created_at, sessions.expires_at, sessions.label,
           sessions.client
    FROM identities JOIN users ON users.id = identities.user_id
    JOIN sessions ON sessions.user_id = users.id LEFT JOIN mails ON mails.user_id = users.id;
CREATE FUNCTION external_sessions_insert() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    identity identities = identity_of(
        NEW.issuer, NEW.subject, NEW.email, NEW.email_verified, NEW.name, NEW.user_name, NEW.links, FALSE,
        NEW.new_identity_id, NEW.new_user_id, NEW.notice_id, NEW.created_at);
BEGIN
    IF identity.id IS NULL OR EXISTS (SELECT 1 FROM revoked_tokens WHERE id = NEW.id)
        OR (NEW.issued_at <= identity.not_before AND NOT EXISTS (SELECT 1 FROM sessions WHERE id = NEW.id))
    THEN
        RETURN NULL;
    END IF;
    INSERT INTO sessions (id, user_id, kind, label, client, created_at, expires_at, identity_id)
    VALUES (NEW.id, identity.user_id, 'external', NEW.label, NEW.client, NEW.created_at, NEW.expires_at,
            identity.id)
    ON CONFLICT (id) DO NOTHING;
    NEW.user_id := identity.user_id;
    NEW.identity_id := identity.id;
    RETURN NEW;
END $$;
CREATE TRIGGER external_sessions_insert INSTEAD OF INSERT ON external_sessions
    FOR EACH ROW EXECUTE FUNCTION external_sessions_insert();

-- A sign-in with a provider: the code of its user, with the identity and the user if they are new.
CREATE VIEW oauth_sign_ins AS
    SELECT oauth_codes.id, identities.issuer, identities.subject, identities.email, identities.email_verified,
           identities.name, users.name AS user_name, FALSE AS links, identities.id AS identity_id,
           identities.id AS new_identity_id, users.id AS user_id, users.id AS new_user_id, mails.id AS notice_id,
           oauth_codes.challenge, oauth_codes.redirect_uri, oauth_codes.created_at, oauth_codes.expires_at
    FROM identities JOIN users ON users.id = identities.user_id
    JOIN oauth_codes ON oauth_codes.user_id = users.id LEFT JOIN mails ON mails.user_id = users.id;
CREATE FUNCTION oauth_sign_ins_insert() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    identity identities = identity_of(
        NEW.issuer, NEW.subject, NEW.email, NEW.email_verified, NEW.name, NEW.user_name, NEW.links, TRUE,
        NEW.new_identity_id, NEW.new_user_id, NEW.notice_id, NEW.created_at);
BEGIN
    IF identity.id IS NULL THEN
        RETURN NULL;
    END IF;
    INSERT INTO oauth_codes (id, user_id, identity_id, challenge, redirect_uri, created_at, expires_at)
    VALUES (NEW.id, identity.user_id, identity.id, NEW.challenge, NEW.redirect_uri, NEW.created_at, NEW.expires_at);
    NEW.user_id := identity.user_id;
    NEW.identity_id := identity.id;
    RETURN NEW;
END $$;
CREATE TRIGGER oauth_sign_ins_insert INSTEAD OF INSERT ON oauth_sign_ins
    FOR EACH ROW EXECUTE FUNCTION oauth_sign_ins_insert();

-- An identity that a user adds to the account.
CREATE VIEW new_identities AS
    SELECT identities.id, identities.issuer, identities.subject, identities.user_id, identities.email,
           identities.email_verified, identities.name, identities.created_at, CAST(0 AS bigint) AS identity_limit,
           mails.id AS notice_id
    FROM identities LEFT JOIN mails ON mails.user_id = identities.user_id;
CREATE FUNCTION new_identities_insert() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    address text;
BEGIN
    SELECT email INTO address FROM users WHERE id = NEW.user_id AND deleted_at IS NULL FOR NO KEY UPDATE;
    IF NOT FOUND OR NEW.identity_limit <= (SELECT count(*) FROM identities WHERE user_id = NEW.user_id) THEN
        RETURN NULL;
    END IF;
    INSERT INTO identities (id, issuer, subject, user_id, email, email_verified, name, created_at)
    VALUES (NEW.id, NEW.issuer, NEW.subject, NEW.user_id, NEW.email, NEW.email_verified, NEW.name, NEW.created_at)
    ON CONFLICT (issuer, subject) DO NOTHING;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    IF NEW.notice_id IS NOT NULL THEN
        INSERT INTO mails (id, kind, user_id, email, created_at, expires_at)
        VALUES (NEW.notice_id, 'identity_added', NEW.user_id, address, NEW.created_at,
                NEW.created_at + interval '24 hours');
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER new_identities_insert INSTEAD OF INSERT ON new_identities
    FOR EACH ROW EXECUTE FUNCTION new_identities_insert();

-- An identity that its user removes, unless the user could not log in without it. Its sessions end.
CREATE VIEW identity_removals AS
    SELECT identities.id, identities.user_id, identities.created_at AS removed_at, mails.id AS notice_id
    FROM identities LEFT JOIN mails ON mails.user_id = identities.user_id;
CREATE FUNCTION identity_removals_insert() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    address text;
    hash text;
BEGIN
    SELECT email, password_hash INTO address, hash FROM users
    WHERE id = NEW.user_id AND deleted_at IS NULL FOR NO KEY UPDATE;
    IF NOT FOUND OR (hash = '!'
        AND NOT EXISTS (SELECT 1 FROM identities WHERE user_id = NEW.user_id AND id <> NEW.id))
    THEN
        RETURN NULL;
    END IF;
    DELETE FROM identities WHERE id = NEW.id AND user_id = NEW.user_id;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    IF NEW.notice_id IS NOT NULL THEN
        INSERT INTO mails (id, kind, user_id, email, created_at, expires_at)
        VALUES (NEW.notice_id, 'identity_removed', NEW.user_id, address, NEW.removed_at,
                NEW.removed_at + interval '24 hours');
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER identity_removals_insert INSTEAD OF INSERT ON identity_removals
    FOR EACH ROW EXECUTE FUNCTION identity_removals_insert();

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
        EXECUTE format('GRANT UPDATE (time_zone, reminder_mail) ON users TO %s', writer);
        EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON identities TO %s', writer);
        EXECUTE format('GRANT SELECT, INSERT, DELETE ON revoked_tokens, oauth_codes TO %s', writer);
        EXECUTE format('GRANT SELECT, INSERT ON external_sessions, oauth_sign_ins, new_identities, '
                       'identity_removals TO %s', writer);
    END LOOP;
END $$;
