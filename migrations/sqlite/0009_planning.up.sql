-- Tags, lists and the order of todos: what is derived from their rows, and what the rows need for reminders
-- and iCalendar.
ALTER TABLE todos ADD COLUMN reminders TEXT NOT NULL DEFAULT '[]'
    CHECK (reminders = '[]' OR (json_valid(reminders) AND json_type(reminders) = 'array' AND due_date IS NOT NULL));
-- properties of an imported todo that have no column, as lines of iCalendar
ALTER TABLE todos ADD COLUMN ical TEXT;

-- Indexes of some todos only: a todo without a date, a list or a position is in none of them.
CREATE INDEX todos_by_due ON todos (user_id, completed, due_key, created_at, id) WHERE due_date IS NOT NULL;
CREATE INDEX todos_by_list ON todos (user_id, list_id, completed, created_at, id) WHERE list_id IS NOT NULL;
CREATE INDEX todos_by_position ON todos (user_id, completed, position, created_at, id) WHERE position IS NOT NULL;
-- A series has one todo for each occurrence.
CREATE UNIQUE INDEX todos_by_series ON todos (series_id, occurrence) WHERE series_id IS NOT NULL;
-- The library fills in `search`, since no database folds texts as it does.
CREATE INDEX todos_unfolded ON todos (user_id, id) WHERE search IS NULL;

-- The trash has the columns of `todos` in their order, and one more.
DROP TRIGGER todos_restored;
DROP TRIGGER users_cascade;
DROP VIEW deletions;
ALTER TABLE trash RENAME TO trash_before;
DROP INDEX trash_by_id;
DROP INDEX trash_by_time;
CREATE TABLE trash (
    id           BLOB    NOT NULL,
    user_id      BLOB    NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    title        TEXT    NOT NULL,
    title_key    TEXT    NOT NULL,
    description  TEXT,
    priority     INTEGER NOT NULL,
    completed    INTEGER NOT NULL,
    created_at   INTEGER NOT NULL,
    updated_at   INTEGER NOT NULL,
    completed_at INTEGER,
    search       TEXT,
    tags         TEXT    NOT NULL DEFAULT '[]',
    list_id      BLOB,
    parent_id    BLOB,
    position     TEXT,
    due_date     INTEGER,
    due_minute   INTEGER,
    due_zone     TEXT,
    due_at       INTEGER,
    undated      INTEGER NOT NULL DEFAULT 1,
    due_key      INTEGER NOT NULL DEFAULT 0,
    rule         TEXT,
    rule_from    INTEGER,
    series_id    BLOB,
    occurrence   INTEGER,
    reminders    TEXT    NOT NULL DEFAULT '[]',
    ical         TEXT,
    deleted_at   INTEGER NOT NULL,
    PRIMARY KEY (user_id, deleted_at, id)
) STRICT, WITHOUT ROWID;
INSERT INTO trash (id, user_id, title, title_key, description, priority, completed, created_at, updated_at,
                   completed_at, search, tags, list_id, parent_id, position, due_date, due_minute, due_zone, due_at,
                   undated, due_key, rule, rule_from, series_id, occurrence, deleted_at)
SELECT id, user_id, title, title_key, description, priority, completed, created_at, updated_at, completed_at,
       search, tags, list_id, parent_id, position, due_date, due_minute, due_zone, due_at, undated, due_key, rule,
       rule_from, series_id, occurrence, deleted_at
FROM trash_before;
DROP TABLE trash_before;
CREATE UNIQUE INDEX trash_by_id ON trash (id);
CREATE INDEX trash_by_time ON trash (deleted_at);
CREATE VIEW deletions AS SELECT id, user_id, updated_at AS guard, deleted_at FROM trash;
CREATE TRIGGER deletions_insert INSTEAD OF INSERT ON deletions BEGIN
    INSERT INTO trash SELECT todos.*, NEW.deleted_at FROM todos
    WHERE id = NEW.id AND user_id = NEW.user_id AND (NEW.guard IS NULL OR updated_at = NEW.guard);
    DELETE FROM todos
    WHERE id = NEW.id AND user_id = NEW.user_id AND (NEW.guard IS NULL OR updated_at = NEW.guard);
END;
CREATE TRIGGER todos_restored AFTER INSERT ON todos WHEN NEW.updated_at > NEW.created_at BEGIN
    DELETE FROM trash WHERE id = NEW.id;
END;

-- The number of a user's todos with a tag. A tag without todos is no row. Only triggers write it.
CREATE TABLE tags (
    user_id   BLOB    NOT NULL,
    tag       TEXT    NOT NULL,
    pending   INTEGER NOT NULL CHECK (pending >= 0),
    completed INTEGER NOT NULL CHECK (completed >= 0),
    PRIMARY KEY (user_id, tag)
) STRICT, WITHOUT ROWID;
-- The todos of a tag in the default order of lists. Only triggers write it.
CREATE TABLE todo_tags (
    user_id    BLOB    NOT NULL,
    tag        TEXT    NOT NULL,
    completed  INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    todo_id    BLOB    NOT NULL,
    PRIMARY KEY (user_id, tag, completed, created_at, todo_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE lists (
    id         BLOB    NOT NULL PRIMARY KEY CHECK (length(id) = 16),
    user_id    BLOB    NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    name       TEXT    NOT NULL CHECK (length(name) BETWEEN 1 AND 100),
    -- `#rrggbb` in lower case
    color      TEXT    CHECK (length(color) = 7),
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL CHECK (updated_at >= created_at),
    -- A deleted list stays until its todos are in the trash: they are moved in pieces.
    deleted_at INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX lists_by_user ON lists (user_id, created_at, id);
CREATE INDEX lists_deleted ON lists (deleted_at) WHERE deleted_at IS NOT NULL;
-- The number of todos in a list. A list without todos may have no row. Only triggers write it.
CREATE TABLE list_counts (
    list_id   BLOB    NOT NULL PRIMARY KEY,
    user_id   BLOB    NOT NULL,
    pending   INTEGER NOT NULL CHECK (pending >= 0),
    completed INTEGER NOT NULL CHECK (completed >= 0)
) STRICT, WITHOUT ROWID;
CREATE INDEX list_counts_by_user ON list_counts (user_id);

-- The new counts first, so that a tag that stays does not end and begin again.
CREATE TRIGGER todos_tagged_insert AFTER INSERT ON todos WHEN NEW.tags <> '[]' BEGIN
    INSERT INTO todo_tags (user_id, tag, completed, created_at, todo_id)
    SELECT NEW.user_id, value, NEW.completed, NEW.created_at, NEW.id FROM json_each(NEW.tags);
    INSERT INTO tags (user_id, tag, pending, completed)
    SELECT NEW.user_id, value, 1 - NEW.completed, NEW.completed FROM json_each(NEW.tags) WHERE TRUE
    ON CONFLICT (user_id, tag)
    DO UPDATE SET pending = pending + excluded.pending, completed = completed + excluded.completed;
END;
CREATE TRIGGER todos_tagged_delete AFTER DELETE ON todos WHEN OLD.tags <> '[]' BEGIN
    DELETE FROM todo_tags
    WHERE user_id = OLD.user_id AND tag IN (SELECT value FROM json_each(OLD.tags)) AND completed = OLD.completed
      AND created_at = OLD.created_at AND todo_id = OLD.id;
    UPDATE tags SET pending = pending - (1 - OLD.completed), completed = completed - OLD.completed
    WHERE user_id = OLD.user_id AND tag IN (SELECT value FROM json_each(OLD.tags));
    DELETE FROM tags
    WHERE user_id = OLD.user_id AND tag IN (SELECT value FROM json_each(OLD.tags)) AND pending = 0
      AND completed = 0;
END;
CREATE TRIGGER todos_tagged_update AFTER UPDATE OF tags, completed, created_at, id, user_id ON todos
WHEN OLD.tags <> NEW.tags OR (NEW.tags <> '[]' AND (OLD.completed <> NEW.completed
    OR OLD.created_at <> NEW.created_at OR OLD.id <> NEW.id OR OLD.user_id <> NEW.user_id)) BEGIN
    DELETE FROM todo_tags
    WHERE user_id = OLD.user_id AND tag IN (SELECT value FROM json_each(OLD.tags)) AND completed = OLD.completed
      AND created_at = OLD.created_at AND todo_id = OLD.id;
    INSERT INTO todo_tags (user_id, tag, completed, created_at, todo_id)
    SELECT NEW.user_id, value, NEW.completed, NEW.created_at, NEW.id FROM json_each(NEW.tags);
    INSERT INTO tags (user_id, tag, pending, completed)
    SELECT NEW.user_id, value, 1 - NEW.completed, NEW.completed FROM json_each(NEW.tags) WHERE TRUE
    ON CONFLICT (user_id, tag)
    DO UPDATE SET pending = pending + excluded.pending, completed = completed + excluded.completed;
    UPDATE tags SET pending = pending - (1 - OLD.completed), completed = completed - OLD.completed
    WHERE user_id = OLD.user_id AND tag IN (SELECT value FROM json_each(OLD.tags));
    DELETE FROM tags
    WHERE user_id = OLD.user_id AND tag IN (SELECT value FROM json_each(OLD.tags)) AND pending = 0
      AND completed = 0;
END;

CREATE TRIGGER todos_listed_insert AFTER INSERT ON todos WHEN NEW.list_id IS NOT NULL BEGIN
    INSERT INTO list_counts (list_id, user_id, pending, completed)
    VALUES (NEW.list_id, NEW.user_id, 1 - NEW.completed, NEW.completed)
    ON CONFLICT (list_id)
    DO UPDATE SET pending = pending + excluded.pending, completed = completed + excluded.completed;
END;
CREATE TRIGGER todos_listed_delete AFTER DELETE ON todos WHEN OLD.list_id IS NOT NULL BEGIN
    UPDATE list_counts SET pending = pending - (1 - OLD.completed), completed = completed - OLD.completed
    WHERE list_id = OLD.list_id;
END;
CREATE TRIGGER todos_listed_update AFTER UPDATE OF list_id, completed ON todos
WHEN OLD.list_id IS NOT NEW.list_id OR (NEW.list_id IS NOT NULL AND OLD.completed <> NEW.completed) BEGIN
    INSERT INTO list_counts (list_id, user_id, pending, completed)
    SELECT NEW.list_id, NEW.user_id, 1 - NEW.completed, NEW.completed WHERE NEW.list_id IS NOT NULL
    ON CONFLICT (list_id)
    DO UPDATE SET pending = pending + excluded.pending, completed = completed + excluded.completed;
    UPDATE list_counts SET pending = pending - (1 - OLD.completed), completed = completed - OLD.completed
    WHERE list_id = OLD.list_id;
END;

-- A tag is new or gone. Its numbers follow from the changes of its todos.
CREATE TRIGGER tags_inserted AFTER INSERT ON tags BEGIN
    UPDATE todo_counts SET seq = seq + 1 WHERE user_id = NEW.user_id;
    INSERT INTO changes (user_id, seq, kind, tag)
    SELECT user_id, seq, 3, NEW.tag FROM todo_counts WHERE user_id = NEW.user_id;
END;
CREATE TRIGGER tags_deleted AFTER DELETE ON tags
WHEN EXISTS (SELECT 1 FROM users WHERE id = OLD.user_id) BEGIN
    UPDATE todo_counts SET seq = seq + 1 WHERE user_id = OLD.user_id;
    INSERT INTO changes (user_id, seq, kind, tag)
    SELECT user_id, seq, 3, OLD.tag FROM todo_counts WHERE user_id = OLD.user_id;
END;
CREATE TRIGGER lists_inserted AFTER INSERT ON lists BEGIN
    UPDATE todo_counts SET seq = seq + 1 WHERE user_id = NEW.user_id;
    INSERT INTO changes (user_id, seq, kind, list_id)
    SELECT user_id, seq, 5, NEW.id FROM todo_counts WHERE user_id = NEW.user_id;
END;
-- A list is gone when it is marked as deleted; the later deletion of its row is no change.
CREATE TRIGGER lists_updated AFTER UPDATE OF name, color, updated_at, deleted_at ON lists BEGIN
    UPDATE todo_counts SET seq = seq + 1 WHERE user_id = NEW.user_id;
    INSERT INTO changes (user_id, seq, kind, list_id)
    SELECT user_id, seq, 5, NEW.id FROM todo_counts WHERE user_id = NEW.user_id;
END;
CREATE TRIGGER lists_deleted AFTER DELETE ON lists BEGIN
    DELETE FROM list_counts WHERE list_id = OLD.id;
END;

-- A statement that changes a text and not `search` leaves it unfolded.
CREATE TRIGGER todos_unfold AFTER UPDATE OF title, description, tags ON todos
WHEN NEW.search IS OLD.search AND NEW.search IS NOT NULL AND (NEW.title <> OLD.title
    OR NEW.description IS NOT OLD.description OR NEW.tags <> OLD.tags) BEGIN
    UPDATE todos SET search = NULL WHERE id = NEW.id;
END;

-- SQLite runs the last created trigger first: the log has a todo before its new tags, as on PostgreSQL.
DROP TRIGGER todos_inserted;
CREATE TRIGGER todos_inserted AFTER INSERT ON todos BEGIN
    UPDATE todo_counts
    SET pending = pending + (1 - NEW.completed), completed = completed + NEW.completed, seq = seq + 1
    WHERE user_id = NEW.user_id;
    INSERT INTO changes (user_id, seq, kind, todo_id)
    SELECT user_id, seq, 1, NEW.id FROM todo_counts WHERE user_id = NEW.user_id;
END;
DROP TRIGGER todos_deleted;
CREATE TRIGGER todos_deleted AFTER DELETE ON todos
WHEN EXISTS (SELECT 1 FROM users WHERE id = OLD.user_id) BEGIN
    UPDATE todo_counts
    SET pending = pending - (1 - OLD.completed), completed = completed - OLD.completed, seq = seq + 1
    WHERE user_id = OLD.user_id;
    INSERT INTO changes (user_id, seq, kind, todo_id)
    SELECT user_id, seq, 2, OLD.id FROM todo_counts WHERE user_id = OLD.user_id;
END;
DROP TRIGGER todos_updated;
-- Not of `position`: todos get their first position, or another one in the same order, in large numbers, which
-- changes nothing that a client has. A todo that is moved has a new `updated_at`.
CREATE TRIGGER todos_updated AFTER UPDATE OF title, description, priority, completed, created_at, updated_at,
    completed_at, tags, list_id, parent_id, due_date, due_minute, due_zone, due_at, undated, due_key,
    rule, rule_from, series_id, occurrence, reminders, ical ON todos
WHEN NEW.user_id = OLD.user_id AND NEW.id = OLD.id BEGIN
    UPDATE todo_counts
    SET pending = pending + OLD.completed - NEW.completed, completed = completed + NEW.completed - OLD.completed,
        seq = seq + 1
    WHERE user_id = NEW.user_id;
    INSERT INTO changes (user_id, seq, kind, todo_id)
    SELECT user_id, seq, 1, NEW.id FROM todo_counts WHERE user_id = NEW.user_id;
END;

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
END;

DROP VIEW keyed_todos;
CREATE VIEW keyed_todos AS
    SELECT idempotency.key, idempotency.fingerprint, idempotency.status, idempotency.answer,
           idempotency.location, idempotency.etag, todos.*
    FROM idempotency JOIN todos ON todos.user_id = idempotency.user_id;
CREATE TRIGGER keyed_todos_insert INSTEAD OF INSERT ON keyed_todos BEGIN
    -- A key is free again after a day.
    DELETE FROM idempotency
    WHERE user_id = NEW.user_id AND key = NEW.key AND made_at < NEW.created_at - 86400000000;
    INSERT INTO idempotency (user_id, key, fingerprint, status, answer, location, etag, made_at)
    VALUES (NEW.user_id, NEW.key, NEW.fingerprint, NEW.status, NEW.answer, NEW.location, NEW.etag, NEW.created_at);
    INSERT INTO todos (id, user_id, title, title_key, description, priority, completed, created_at, updated_at,
                       completed_at, search, tags, list_id, parent_id, position, due_date, due_minute, due_zone,
                       due_at, undated, due_key, rule, rule_from, series_id, occurrence, reminders, ical)
    VALUES (NEW.id, NEW.user_id, NEW.title, NEW.title_key, NEW.description, NEW.priority, NEW.completed,
            NEW.created_at, NEW.updated_at, NEW.completed_at, NEW.search, coalesce(NEW.tags, '[]'), NEW.list_id,
            NEW.parent_id, NEW.position, NEW.due_date, NEW.due_minute, NEW.due_zone, NEW.due_at,
            NEW.due_date IS NULL, coalesce(NEW.due_key, 0), NEW.rule, NEW.rule_from, NEW.series_id,
            NEW.occurrence, coalesce(NEW.reminders, '[]'), NEW.ical);
END;
