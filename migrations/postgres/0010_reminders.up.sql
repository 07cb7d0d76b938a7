-- The reminders of todos, with the time of each, and the webhooks that receive them.

-- The locks of all tables that change, at once. Statements of running replicas may hold them in another
-- order: the wait is shorter than deadlock_timeout, so that this gives way and no request fails.
SET LOCAL lock_timeout = '500ms';
DO $$
BEGIN
    FOR attempt IN 1..40 LOOP
        BEGIN
            LOCK TABLE users, todos IN SHARE ROW EXCLUSIVE MODE;
            RETURN;
        EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
            PERFORM pg_sleep(0.5);
        END;
    END LOOP;
    RAISE EXCEPTION 'other transactions hold locks on users or todos: end them, and migrate again'
        USING ERRCODE = 'lock_not_available';
END $$;
SET LOCAL lock_timeout = 0;

-- One row for each reminder of a todo that is pending, and for one that has fired within 30 days. Triggers
-- insert and delete those that have not fired. They go with the user by `users_cascade`.
CREATE TABLE reminders (
    id             uuid        PRIMARY KEY DEFAULT gen_random_uuid(),
    user_id        uuid        NOT NULL,
    todo_id        uuid        NOT NULL,
    minutes_before bigint      NOT NULL CHECK (minutes_before BETWEEN 0 AND 40320),
    -- when the todo is due: a day (days since 1970-01-01), or an instant
    due_date       bigint,
    due_at         timestamptz,
    -- NULL until the library has computed it, from the day and the time zone of the user
    fire_at        timestamptz,
    -- A reminder whose time was past when its todo was written does not fire. NULL: its time has moved since.
    written_at     timestamptz,
    fired_at       timestamptz,
    is_late        boolean     NOT NULL DEFAULT FALSE,
    CHECK ((due_date IS NULL) <> (due_at IS NULL)),
    CHECK (fired_at IS NULL OR fire_at IS NOT NULL)
);
CREATE INDEX reminders_by_user ON reminders (user_id, fired_at, fire_at);
CREATE INDEX reminders_by_todo ON reminders (todo_id);
CREATE INDEX reminders_due ON reminders (fire_at) WHERE fired_at IS NULL AND fire_at IS NOT NULL;
CREATE INDEX reminders_timeless ON reminders (id) WHERE fire_at IS NULL;
CREATE INDEX reminders_fired ON reminders (fired_at) WHERE fired_at IS NOT NULL;

-- Where the reminders of a user are sent.
CREATE TABLE webhooks (
    user_id         uuid        PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    url             text        COLLATE "C" NOT NULL CHECK (char_length(url) BETWEEN 1 AND 2000),
    -- the key of the signatures
    secret          bytea       NOT NULL CHECK (octet_length(secret) BETWEEN 24 AND 64),
    created_at      timestamptz NOT NULL,
    last_success_at timestamptz,
    last_failure_at timestamptz,
    last_failure    text        CHECK (char_length(last_failure) <= 200),
    -- the first failure since the last success, and the number of those
    failing_since   timestamptz,
    failures        bigint      NOT NULL DEFAULT 0 CHECK (failures >= 0),
    -- It receives nothing from then on.
    off_at          timestamptz,
    -- Nothing is sent until then.
    paused_until    timestamptz,
    -- random for each attempt: a late process does not overwrite what a later attempt has stored
    lease           uuid,
    leased_until    timestamptz,
    CHECK ((lease IS NULL) = (leased_until IS NULL))
);

-- What is to be sent: a row goes when it was received.
CREATE TABLE webhook_deliveries (
    reminder_id     uuid        PRIMARY KEY,
    user_id         uuid        NOT NULL REFERENCES webhooks (user_id) ON DELETE CASCADE,
    created_at      timestamptz NOT NULL,
    attempts        bigint      NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    next_attempt_at timestamptz NOT NULL
);
CREATE INDEX webhook_deliveries_by_user ON webhook_deliveries (user_id, next_attempt_at);
CREATE INDEX webhook_deliveries_due ON webhook_deliveries (next_attempt_at);

-- What is queued is due at once at a webhook that is set anew.
CREATE FUNCTION webhooks_set() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE webhook_deliveries SET next_attempt_at = NEW.created_at
    WHERE user_id = NEW.user_id AND next_attempt_at > NEW.created_at;
    RETURN NULL;
END $$;
CREATE TRIGGER webhooks_set AFTER UPDATE OF url, created_at ON webhooks FOR EACH ROW EXECUTE FUNCTION webhooks_set();

-- A todo gets the reminders that it lacks: those of its list of minutes whose time is to come.
CREATE FUNCTION todos_with_reminders_inserted() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO reminders (user_id, todo_id, minutes_before, due_date, due_at, fire_at, written_at)
    SELECT NEW.user_id, NEW.id, before, CASE WHEN NEW.due_at IS NULL THEN NEW.due_date END, NEW.due_at,
           NEW.due_at - before * interval '1 minute', NEW.updated_at
    FROM (SELECT CAST(value AS bigint) AS before
          FROM json_array_elements_text(CAST(NEW.reminders AS json))) AS wanted
    WHERE (NEW.due_at IS NULL OR NEW.due_at - before * interval '1 minute' > NEW.updated_at) AND NOT EXISTS (
        SELECT FROM reminders WHERE todo_id = NEW.id AND minutes_before = before
        AND due_at IS NOT DISTINCT FROM NEW.due_at
        AND due_date IS NOT DISTINCT FROM CASE WHEN NEW.due_at IS NULL THEN NEW.due_date END);
    RETURN NULL;
END $$;
CREATE TRIGGER todos_with_reminders_inserted AFTER INSERT ON todos FOR EACH ROW
    WHEN (NEW.reminders <> '[]' AND NOT NEW.completed) EXECUTE FUNCTION todos_with_reminders_inserted();
CREATE FUNCTION todos_with_reminders_updated() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM reminders WHERE todo_id = OLD.id AND fired_at IS NULL AND (
        NEW.completed OR NEW.id <> OLD.id OR NEW.user_id <> OLD.user_id
        OR due_at IS DISTINCT FROM NEW.due_at
        OR due_date IS DISTINCT FROM CASE WHEN NEW.due_at IS NULL THEN NEW.due_date END
        OR minutes_before NOT IN (
            SELECT CAST(value AS bigint) FROM json_array_elements_text(CAST(NEW.reminders AS json))));
    IF NOT NEW.completed THEN
        INSERT INTO reminders (user_id, todo_id, minutes_before, due_date, due_at, fire_at, written_at)
        SELECT NEW.user_id, NEW.id, before, CASE WHEN NEW.due_at IS NULL THEN NEW.due_date END, NEW.due_at,
               NEW.due_at - before * interval '1 minute', NEW.updated_at
        FROM (SELECT CAST(value AS bigint) AS before
              FROM json_array_elements_text(CAST(NEW.reminders AS json))) AS wanted
        WHERE (NEW.due_at IS NULL OR NEW.due_at - before * interval '1 minute' > NEW.updated_at) AND NOT EXISTS (
            SELECT FROM reminders WHERE todo_id = NEW.id AND minutes_before = before
            AND due_at IS NOT DISTINCT FROM NEW.due_at
            AND due_date IS NOT DISTINCT FROM CASE WHEN NEW.due_at IS NULL THEN NEW.due_date END);
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER todos_with_reminders_updated
    AFTER UPDATE OF reminders, due_date, due_at, completed, id, user_id ON todos FOR EACH ROW
    WHEN ((OLD.reminders <> '[]' OR NEW.reminders <> '[]') AND (OLD.reminders <> NEW.reminders
        OR OLD.completed <> NEW.completed OR OLD.due_at IS DISTINCT FROM NEW.due_at
        OR OLD.due_date IS DISTINCT FROM NEW.due_date OR OLD.id <> NEW.id OR OLD.user_id <> NEW.user_id))
    EXECUTE FUNCTION todos_with_reminders_updated();
CREATE FUNCTION todos_with_reminders_deleted() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM reminders WHERE todo_id = OLD.id AND fired_at IS NULL;
    RETURN NULL;
END $$;
CREATE TRIGGER todos_with_reminders_deleted AFTER DELETE ON todos FOR EACH ROW
    WHEN (OLD.reminders <> '[]') EXECUTE FUNCTION todos_with_reminders_deleted();
-- TRUNCATE fires no trigger of rows.
CREATE FUNCTION todos_reminders_truncated() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM reminders WHERE fired_at IS NULL;
    RETURN NULL;
END $$;
CREATE TRIGGER todos_reminders_truncated AFTER TRUNCATE ON todos
    FOR EACH STATEMENT EXECUTE FUNCTION todos_reminders_truncated();

-- A day begins at another time. A reminder whose time is past then fires, late.
CREATE FUNCTION users_time_zone_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE reminders SET fire_at = NULL, written_at = NULL
    WHERE user_id = NEW.id AND fired_at IS NULL AND due_date IS NOT NULL;
    RETURN NULL;
END $$;
CREATE TRIGGER users_time_zone_changed AFTER UPDATE OF time_zone ON users FOR EACH ROW
    WHEN (OLD.time_zone IS DISTINCT FROM NEW.time_zone) EXECUTE FUNCTION users_time_zone_changed();

-- A reminder that is due fires: its entry in the log, and what is to be sent, take effect with it. The rows
-- that the other writers of the user hold meanwhile are skipped: with the counter locked, nothing may wait.
CREATE VIEW reminder_firings AS
    SELECT reminders.id, reminders.user_id, reminders.fired_at, reminders.is_late,
           TRUE AS is_delivered, TRUE AS is_mailed
    FROM reminders;
CREATE FUNCTION reminder_firings_insert() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM todo_counts WHERE user_id = NEW.user_id FOR UPDATE;
    PERFORM FROM reminders WHERE id = NEW.id AND fired_at IS NULL AND fire_at <= NEW.fired_at
        FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    UPDATE reminders SET fired_at = NEW.fired_at, is_late = NEW.is_late WHERE id = NEW.id;
    WITH counted AS (
        UPDATE todo_counts AS counts SET seq = counts.seq + 1 WHERE user_id = NEW.user_id RETURNING user_id, seq)
    INSERT INTO changes (user_id, seq, kind, reminder_id) SELECT user_id, seq, 4, NEW.id FROM counted;
    IF NEW.is_delivered THEN
        INSERT INTO webhook_deliveries (reminder_id, user_id, created_at, next_attempt_at)
        SELECT NEW.id, user_id, NEW.fired_at, greatest(NEW.fired_at, paused_until) FROM webhooks
        WHERE user_id = NEW.user_id AND off_at IS NULL
          AND (SELECT count(*) FROM webhook_deliveries AS waiting WHERE waiting.user_id = NEW.user_id) < 500;
    END IF;
    IF NEW.is_mailed THEN
        INSERT INTO mails (id, kind, user_id, email, created_at, expires_at)
        SELECT NEW.id, 'reminder', id, email, NEW.fired_at, NEW.fired_at + interval '24 hours' FROM users
        WHERE id = NEW.user_id AND reminder_mail AND email_verified_at IS NOT NULL
          AND (SELECT count(*) FROM mails AS sent WHERE sent.user_id = NEW.user_id AND sent.kind = 'reminder'
               AND sent.created_at > NEW.fired_at - interval '1 hour') < 20
        ON CONFLICT DO NOTHING;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER reminder_firings_insert INSTEAD OF INSERT ON reminder_firings
    FOR EACH ROW EXECUTE FUNCTION reminder_firings_insert();

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
    DELETE FROM todo_tags WHERE user_id = OLD.id;
    DELETE FROM tags WHERE user_id = OLD.id;
    DELETE FROM lists WHERE user_id = OLD.id;
    DELETE FROM list_counts WHERE user_id = OLD.id;
    DELETE FROM reminders WHERE user_id = OLD.id;
    DELETE FROM webhooks WHERE user_id = OLD.id;
    RETURN NULL;
END $$;

-- Those whose time is past have had it.
INSERT INTO reminders (user_id, todo_id, minutes_before, due_date, due_at, fire_at, written_at)
SELECT user_id, id, CAST(before AS bigint), CASE WHEN due_at IS NULL THEN due_date END, due_at,
       due_at - CAST(before AS bigint) * interval '1 minute', greatest(updated_at, now())
FROM todos, json_array_elements_text(CAST(reminders AS json)) AS before
WHERE reminders <> '[]' AND NOT completed
  AND (due_at IS NULL OR due_at - CAST(before AS bigint) * interval '1 minute' > greatest(updated_at, now()));

-- A role that may delete todos is one that serves requests. Replicas of the version before go on writing
-- under it, and the triggers have the rights of the role that writes.
DO $$
DECLARE
    writer text;
BEGIN
    FOR writer IN
        SELECT DISTINCT CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END
        FROM pg_class, aclexplode(relacl)
        WHERE pg_class.oid = CAST('todos' AS regclass) AND privilege_type = 'DELETE' AND grantee <> relowner
    LOOP
        EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON reminders, webhooks, webhook_deliveries TO %s', writer);
        EXECUTE format('GRANT SELECT, INSERT ON reminder_firings TO %s', writer);
    END LOOP;
END $$;
