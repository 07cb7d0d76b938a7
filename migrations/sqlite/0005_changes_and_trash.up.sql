-- The columns that todos need for tags, due dates, lists and search; the log of each user's changes; the
-- trash; the answers to requests with a key.
--
-- The columns are added: SQLite reads all rows once for each of them and writes none. So each CHECK
-- stands at the last of its columns. A new table with a copy of the rows was rejected: it takes half the
-- time, but also one and a half times the space of the file.
ALTER TABLE todos ADD COLUMN search TEXT;
-- a JSON array of the sorted names
ALTER TABLE todos ADD COLUMN tags TEXT NOT NULL DEFAULT '[]'
    CHECK (tags = '[]' OR (json_valid(tags) AND json_type(tags) = 'array'));
ALTER TABLE todos ADD COLUMN list_id BLOB;
ALTER TABLE todos ADD COLUMN parent_id BLOB;
ALTER TABLE todos ADD COLUMN position TEXT;
-- days since 1970-01-01, in no time zone
ALTER TABLE todos ADD COLUMN due_date INTEGER;
ALTER TABLE todos ADD COLUMN due_minute INTEGER CHECK (due_minute BETWEEN 0 AND 1439);
ALTER TABLE todos ADD COLUMN due_zone TEXT;
-- the instant of date, minute and zone
ALTER TABLE todos ADD COLUMN due_at INTEGER
    CHECK ((due_minute IS NULL) = (due_zone IS NULL) AND (due_minute IS NULL) = (due_at IS NULL)
           AND (due_minute IS NULL OR due_date IS NOT NULL));
-- A key that sorts undated todos last in both directions.
ALTER TABLE todos ADD COLUMN undated INTEGER NOT NULL DEFAULT 1
    CHECK (undated IN (0, 1) AND undated = (due_date IS NULL));
ALTER TABLE todos ADD COLUMN due_key INTEGER NOT NULL DEFAULT 0;
ALTER TABLE todos ADD COLUMN rule TEXT;
-- 1 the due date, 2 the completion
ALTER TABLE todos ADD COLUMN rule_from INTEGER CHECK (rule_from IN (1, 2));
ALTER TABLE todos ADD COLUMN series_id BLOB
    CHECK (rule IS NULL OR (due_date IS NOT NULL AND series_id IS NOT NULL));
ALTER TABLE todos ADD COLUMN occurrence INTEGER;

-- The number of the user's last change. A write takes its locks in this order: rows, this row, the log.
ALTER TABLE todo_counts ADD COLUMN seq INTEGER NOT NULL DEFAULT 0 CHECK (seq >= 0);

-- `epoch` is random. A number of a change is valid with the epoch that it was read with.
CREATE TABLE meta (
    name  TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO meta (name, value) VALUES ('epoch', lower(hex(randomblob(8))));

-- What changed, in the order of the commits. The numbers of a user have no gaps. Only triggers write it,
-- for a user that has a counter; it goes with the user by `users_cascade`, without a foreign key, which
-- would be asked at each write.
CREATE TABLE changes (
    user_id     BLOB    NOT NULL,
    seq         INTEGER NOT NULL CHECK (seq > 0),
    -- 1 a todo is new or changed, 2 a todo is gone, 3 a tag, 4 a reminder, 5 a list
    kind        INTEGER NOT NULL CHECK (kind > 0),
    todo_id     BLOB,
    tag         TEXT,
    reminder_id BLOB,
    list_id     BLOB,
    PRIMARY KEY (user_id, seq),
    CHECK (kind > 2 OR todo_id IS NOT NULL)
) STRICT, WITHOUT ROWID;

-- The answers to requests with a key, by which a repeated request is answered.
CREATE TABLE idempotency (
    user_id     BLOB    NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    key         TEXT    NOT NULL CHECK (length(key) BETWEEN 1 AND 255),
    -- a hash of the request: the same key with another request is an error
    fingerprint BLOB    NOT NULL,
    status      INTEGER NOT NULL,
    answer      TEXT    NOT NULL,
    location    TEXT,
    etag        TEXT,
    made_at     INTEGER NOT NULL,
    PRIMARY KEY (user_id, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX idempotency_by_time ON idempotency (made_at);
-- The long answers of a user, whose size has a limit.
CREATE INDEX idempotency_long ON idempotency (user_id, octet_length(answer)) WHERE octet_length(answer) > 8192;

-- Deleted todos: the columns of `todos` in their order, and one more. They lie together as in `todos`.
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
    deleted_at   INTEGER NOT NULL,
    PRIMARY KEY (user_id, deleted_at, id)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX trash_by_id ON trash (id);
-- for the clean-up of expired todos
CREATE INDEX trash_by_time ON trash (deleted_at);

-- Each write of a todo is counted, numbered and logged.
DROP TRIGGER todos_count_insert;
DROP TRIGGER todos_count_delete;
DROP TRIGGER todos_count_update;
DROP TRIGGER todos_count_move;
CREATE TRIGGER todos_inserted AFTER INSERT ON todos BEGIN
    UPDATE todo_counts
    SET pending = pending + (1 - NEW.completed), completed = completed + NEW.completed, seq = seq + 1
    WHERE user_id = NEW.user_id;
    INSERT INTO changes (user_id, seq, kind, todo_id)
    SELECT user_id, seq, 1, NEW.id FROM todo_counts WHERE user_id = NEW.user_id;
END;
-- All columns but those derived for search and sorting: the library may fill these in later.
CREATE TRIGGER todos_updated AFTER UPDATE OF title, description, priority, completed, created_at, updated_at,
    completed_at, tags, list_id, parent_id, position, due_date, due_minute, due_zone, due_at, undated, due_key,
    rule, rule_from, series_id, occurrence ON todos
WHEN NEW.user_id = OLD.user_id AND NEW.id = OLD.id BEGIN
    UPDATE todo_counts
    SET pending = pending + OLD.completed - NEW.completed, completed = completed + NEW.completed - OLD.completed,
        seq = seq + 1
    WHERE user_id = NEW.user_id;
    INSERT INTO changes (user_id, seq, kind, todo_id)
    SELECT user_id, seq, 1, NEW.id FROM todo_counts WHERE user_id = NEW.user_id;
END;
-- A todo that is given to another user, or another id, is gone here and new there.
CREATE TRIGGER todos_moved AFTER UPDATE OF user_id, id ON todos
WHEN NEW.user_id <> OLD.user_id OR NEW.id <> OLD.id BEGIN
    UPDATE todo_counts
    SET pending = pending - (1 - OLD.completed), completed = completed - OLD.completed, seq = seq + 1
    WHERE user_id = OLD.user_id;
    INSERT INTO changes (user_id, seq, kind, todo_id)
    SELECT user_id, seq, 2, OLD.id FROM todo_counts WHERE user_id = OLD.user_id;
    UPDATE todo_counts
    SET pending = pending + (1 - NEW.completed), completed = completed + NEW.completed, seq = seq + 1
    WHERE user_id = NEW.user_id;
    INSERT INTO changes (user_id, seq, kind, todo_id)
    SELECT user_id, seq, 1, NEW.id FROM todo_counts WHERE user_id = NEW.user_id;
END;
-- Not if the user is deleted: the user's counter and log are deleted too.
CREATE TRIGGER todos_deleted AFTER DELETE ON todos
WHEN EXISTS (SELECT 1 FROM users WHERE id = OLD.user_id) BEGIN
    UPDATE todo_counts
    SET pending = pending - (1 - OLD.completed), completed = completed - OLD.completed, seq = seq + 1
    WHERE user_id = OLD.user_id;
    INSERT INTO changes (user_id, seq, kind, todo_id)
    SELECT user_id, seq, 2, OLD.id FROM todo_counts WHERE user_id = OLD.user_id;
END;
-- The log keeps the last 10,000 entries of a user. They are a range, since the numbers have no gaps.
CREATE TRIGGER changes_prune AFTER INSERT ON changes WHEN NEW.seq % 64 = 0 BEGIN
    DELETE FROM changes WHERE user_id = NEW.user_id AND seq <= NEW.seq - 10000;
END;

DROP TRIGGER users_cascade;
CREATE TRIGGER users_cascade AFTER DELETE ON users BEGIN
    DELETE FROM sessions WHERE user_id = OLD.id;
    DELETE FROM todos WHERE user_id = OLD.id;
    DELETE FROM todo_counts WHERE user_id = OLD.id;
    DELETE FROM changes WHERE user_id = OLD.id;
    DELETE FROM idempotency WHERE user_id = OLD.id;
    DELETE FROM trash WHERE user_id = OLD.id;
END;

-- An INSERT moves a todo to the trash. `guard` is the version (updated_at) that the statement has found,
-- or NULL for any. A condition with several versions belongs into the statement's SELECT.
CREATE VIEW deletions AS SELECT id, user_id, updated_at AS guard, deleted_at FROM trash;
CREATE TRIGGER deletions_insert INSTEAD OF INSERT ON deletions BEGIN
    INSERT INTO trash SELECT todos.*, NEW.deleted_at FROM todos
    WHERE id = NEW.id AND user_id = NEW.user_id AND (NEW.guard IS NULL OR updated_at = NEW.guard);
    DELETE FROM todos
    WHERE id = NEW.id AND user_id = NEW.user_id AND (NEW.guard IS NULL OR updated_at = NEW.guard);
END;
-- A todo that is restored leaves the trash. Its version is a new one, so a new todo costs nothing here.
CREATE TRIGGER todos_restored AFTER INSERT ON todos WHEN NEW.updated_at > NEW.created_at BEGIN
    DELETE FROM trash WHERE id = NEW.id;
END;

-- A new todo and the answer to its request, by one statement: there is never the one without the other.
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
                       due_at, undated, due_key, rule, rule_from, series_id, occurrence)
    VALUES (NEW.id, NEW.user_id, NEW.title, NEW.title_key, NEW.description, NEW.priority, NEW.completed,
            NEW.created_at, NEW.updated_at, NEW.completed_at, NEW.search, coalesce(NEW.tags, '[]'), NEW.list_id,
            NEW.parent_id, NEW.position, NEW.due_date, NEW.due_minute, NEW.due_zone, NEW.due_at,
            NEW.due_date IS NULL, coalesce(NEW.due_key, 0), NEW.rule, NEW.rule_from, NEW.series_id,
            NEW.occurrence);
END;
