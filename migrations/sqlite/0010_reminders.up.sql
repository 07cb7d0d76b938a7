-- The reminders of todos, with the time of each, and the webhooks that receive them.

-- One row for each reminder of a todo that is pending, and for one that has fired within 30 days. Triggers
-- insert and delete those that have not fired. They go with the user by `users_cascade`.
CREATE TABLE reminders (
    -- random: a function of every SQLite, so that an older `sqlite3` can open the file
    id             BLOB    NOT NULL PRIMARY KEY DEFAULT (randomblob(16)) CHECK (length(id) = 16),
    user_id        BLOB    NOT NULL,
    todo_id        BLOB    NOT NULL,
    minutes_before INTEGER NOT NULL CHECK (minutes_before BETWEEN 0 AND 40320),
    -- when the todo is due: a day (days since 1970-01-01), or an instant
    due_date       INTEGER,
    due_at         INTEGER,
    -- NULL until the library has computed it, from the day and the time zone of the user
    fire_at        INTEGER,
    -- A reminder whose time was past when its todo was written does not fire. NULL: its time has moved since.
    written_at     INTEGER,
    fired_at       INTEGER,
    is_late        INTEGER NOT NULL DEFAULT 0 CHECK (is_late IN (0, 1)),
    CHECK ((due_date IS NULL) <> (due_at IS NULL)),
    CHECK (fired_at IS NULL OR fire_at IS NOT NULL)
) STRICT, WITHOUT ROWID;
CREATE INDEX reminders_by_user ON reminders (user_id, fired_at, fire_at);
CREATE INDEX reminders_by_todo ON reminders (todo_id);
CREATE INDEX reminders_due ON reminders (fire_at) WHERE fired_at IS NULL AND fire_at IS NOT NULL;
CREATE INDEX reminders_timeless ON reminders (id) WHERE fire_at IS NULL;
CREATE INDEX reminders_fired ON reminders (fired_at) WHERE fired_at IS NOT NULL;

-- Where the reminders of a user are sent.
CREATE TABLE webhooks (
    user_id         BLOB    NOT NULL PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    url             TEXT    NOT NULL CHECK (length(url) BETWEEN 1 AND 2000),
    -- the key of the signatures
    secret          BLOB    NOT NULL CHECK (length(secret) BETWEEN 24 AND 64),
    created_at      INTEGER NOT NULL,
    last_success_at INTEGER,
    last_failure_at INTEGER,
    last_failure    TEXT    CHECK (length(last_failure) <= 200),
    -- the first failure since the last success, and the number of those
    failing_since   INTEGER,
    failures        INTEGER NOT NULL DEFAULT 0 CHECK (failures >= 0),
    -- It receives nothing from then on.
    off_at          INTEGER,
    -- Nothing is sent until then.
    paused_until    INTEGER,
    -- random for each attempt: a late process does not overwrite what a later attempt has stored
    lease           BLOB    CHECK (length(lease) = 16),
    leased_until    INTEGER,
    CHECK ((lease IS NULL) = (leased_until IS NULL))
) STRICT, WITHOUT ROWID;

-- What is to be sent: a row goes when it was received.
CREATE TABLE webhook_deliveries (
    reminder_id     BLOB    NOT NULL PRIMARY KEY,
    user_id         BLOB    NOT NULL REFERENCES webhooks (user_id) ON DELETE CASCADE,
    created_at      INTEGER NOT NULL,
    attempts        INTEGER NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    next_attempt_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX webhook_deliveries_by_user ON webhook_deliveries (user_id, next_attempt_at);
CREATE INDEX webhook_deliveries_due ON webhook_deliveries (next_attempt_at);

-- What is queued is due at once at a webhook that is set anew.
CREATE TRIGGER webhooks_set AFTER UPDATE OF url, created_at ON webhooks BEGIN
    UPDATE webhook_deliveries SET next_attempt_at = NEW.created_at
    WHERE user_id = NEW.user_id AND next_attempt_at > NEW.created_at;
END;

-- Those of the list of minutes whose time is to come.
CREATE TRIGGER todos_with_reminders_inserted AFTER INSERT ON todos
WHEN NEW.reminders <> '[]' AND NOT NEW.completed BEGIN
    INSERT INTO reminders (user_id, todo_id, minutes_before, due_date, due_at, fire_at, written_at)
    SELECT NEW.user_id, NEW.id, value, CASE WHEN NEW.due_at IS NULL THEN NEW.due_date END, NEW.due_at,
           NEW.due_at - value * 60000000, NEW.updated_at
    FROM json_each(NEW.reminders)
    WHERE (NEW.due_at IS NULL OR NEW.due_at - value * 60000000 > NEW.updated_at) AND NOT EXISTS (
        SELECT 1 FROM reminders WHERE todo_id = NEW.id AND minutes_before = value AND due_at IS NEW.due_at
        AND due_date IS CASE WHEN NEW.due_at IS NULL THEN NEW.due_date END);
END;
CREATE TRIGGER todos_with_reminders_updated AFTER UPDATE OF reminders, due_date, due_at, completed, id, user_id ON todos
WHEN (OLD.reminders <> '[]' OR NEW.reminders <> '[]') AND (OLD.reminders <> NEW.reminders
    OR OLD.completed <> NEW.completed OR OLD.due_at IS NOT NEW.due_at OR OLD.due_date IS NOT NEW.due_date
    OR OLD.id <> NEW.id OR OLD.user_id <> NEW.user_id) BEGIN
    DELETE FROM reminders WHERE todo_id = OLD.id AND fired_at IS NULL AND (
        NEW.completed OR NEW.id <> OLD.id OR NEW.user_id <> OLD.user_id OR due_at IS NOT NEW.due_at
        OR due_date IS NOT CASE WHEN NEW.due_at IS NULL THEN NEW.due_date END
        OR minutes_before NOT IN (SELECT value FROM json_each(NEW.reminders)));
    INSERT INTO reminders (user_id, todo_id, minutes_before, due_date, due_at, fire_at, written_at)
    SELECT NEW.user_id, NEW.id, value, CASE WHEN NEW.due_at IS NULL THEN NEW.due_date END, NEW.due_at,
           NEW.due_at - value * 60000000, NEW.updated_at
    FROM json_each(NEW.reminders)
    WHERE NOT NEW.completed
      AND (NEW.due_at IS NULL OR NEW.due_at - value * 60000000 > NEW.updated_at) AND NOT EXISTS (
        SELECT 1 FROM reminders WHERE todo_id = NEW.id AND minutes_before = value AND due_at IS NEW.due_at
        AND due_date IS CASE WHEN NEW.due_at IS NULL THEN NEW.due_date END);
END;
CREATE TRIGGER todos_with_reminders_deleted AFTER DELETE ON todos WHEN OLD.reminders <> '[]' BEGIN
    DELETE FROM reminders WHERE todo_id = OLD.id AND fired_at IS NULL;
END;

-- A day begins at another time. A reminder whose time is past then fires, late.
CREATE TRIGGER users_time_zone_changed AFTER UPDATE OF time_zone ON users WHEN OLD.time_zone IS NOT NEW.time_zone BEGIN
    UPDATE reminders SET fire_at = NULL, written_at = NULL
    WHERE user_id = NEW.id AND fired_at IS NULL AND due_date IS NOT NULL;
END;

-- A reminder that is due fires: its entry in the log, and what is to be sent, take effect with it.
CREATE VIEW reminder_firings AS
    SELECT reminders.id, reminders.user_id, reminders.fired_at, reminders.is_late,
           TRUE AS is_delivered, TRUE AS is_mailed
    FROM reminders;
CREATE TRIGGER reminder_firings_insert INSTEAD OF INSERT ON reminder_firings BEGIN
    UPDATE reminders SET fired_at = NEW.fired_at, is_late = NEW.is_late WHERE id = NEW.id;
    UPDATE todo_counts SET seq = seq + 1 WHERE user_id = NEW.user_id;
    INSERT INTO changes (user_id, seq, kind, reminder_id)
    SELECT user_id, seq, 4, NEW.id FROM todo_counts WHERE user_id = NEW.user_id;
    INSERT INTO webhook_deliveries (reminder_id, user_id, created_at, next_attempt_at)
    SELECT NEW.id, user_id, NEW.fired_at, max(NEW.fired_at, coalesce(paused_until, 0)) FROM webhooks
    WHERE NEW.is_delivered AND user_id = NEW.user_id AND off_at IS NULL
      AND (SELECT count(*) FROM webhook_deliveries AS waiting WHERE waiting.user_id = NEW.user_id) < 500;
    INSERT INTO mails (id, kind, user_id, email, created_at, expires_at)
    SELECT NEW.id, 'reminder', id, email, NEW.fired_at, NEW.fired_at + 86400000000 FROM users
    WHERE NEW.is_mailed AND id = NEW.user_id AND reminder_mail AND email_verified_at IS NOT NULL
      AND (SELECT count(*) FROM mails AS sent WHERE sent.user_id = NEW.user_id AND sent.kind = 'reminder'
           AND sent.created_at > NEW.fired_at - 3600000000) < 20
    ON CONFLICT DO NOTHING;
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
    DELETE FROM todo_tags WHERE user_id = OLD.id;
    DELETE FROM tags WHERE user_id = OLD.id;
    DELETE FROM lists WHERE user_id = OLD.id;
    DELETE FROM list_counts WHERE user_id = OLD.id;
    DELETE FROM reminders WHERE user_id = OLD.id;
    DELETE FROM webhooks WHERE user_id = OLD.id;
END;

-- Those whose time is past have had it.
INSERT INTO reminders (user_id, todo_id, minutes_before, due_date, due_at, fire_at, written_at)
SELECT user_id, todos.id, value, CASE WHEN due_at IS NULL THEN due_date END, due_at, due_at - value * 60000000,
       max(updated_at, CAST(unixepoch('now', 'subsec') * 1000000 AS INTEGER))
FROM todos, json_each(reminders)
WHERE reminders <> '[]' AND NOT completed AND (due_at IS NULL
    OR due_at - value * 60000000 > max(updated_at, CAST(unixepoch('now', 'subsec') * 1000000 AS INTEGER)));
