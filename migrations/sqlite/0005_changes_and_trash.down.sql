-- SQLite cannot drop these columns: their CHECKs name each other, and each DROP COLUMN writes all rows.
DROP VIEW keyed_todos;
DROP VIEW deletions;
DROP TRIGGER users_cascade;
DROP TRIGGER todos_restored;
DROP TRIGGER todos_inserted;
DROP TRIGGER todos_updated;
DROP TRIGGER todos_moved;
DROP TRIGGER todos_deleted;
DROP TRIGGER todos_rules_insert;
DROP TRIGGER todos_rules_update;
DROP TABLE trash;
DROP TABLE idempotency;
DROP TABLE changes;
DROP TABLE meta;
ALTER TABLE todo_counts DROP COLUMN seq;
DROP INDEX todos_by_id;
DROP INDEX todos_by_priority;
DROP INDEX todos_by_title;
ALTER TABLE todos RENAME TO todos_before;

CREATE TABLE todos (
    id           BLOB    NOT NULL CHECK (length(id) = 16),
    user_id      BLOB    NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    title        TEXT    NOT NULL CHECK (length(title) BETWEEN 1 AND 200),
    -- the title in lower case, folded by the library: its bytes order titles alike on every database
    title_key    TEXT    NOT NULL CHECK (length(title_key) >= 1),
    description  TEXT    CHECK (length(description) <= 1000),
    -- 1 low, 2 medium, 3 high
    priority     INTEGER NOT NULL CHECK (priority BETWEEN 1 AND 3),
    completed    INTEGER NOT NULL CHECK (completed IN (0, 1)),
    created_at   INTEGER NOT NULL,
    updated_at   INTEGER NOT NULL CHECK (updated_at >= created_at),
    completed_at INTEGER,
    PRIMARY KEY (user_id, completed, created_at, id),
    CHECK (completed = (completed_at IS NOT NULL))
) STRICT, WITHOUT ROWID;

INSERT INTO todos (id, user_id, title, title_key, description, priority, completed, created_at, updated_at, completed_at)
SELECT id, user_id, title, title_key, description, priority, completed, created_at, updated_at, completed_at
FROM todos_before;
DROP TABLE todos_before;

CREATE UNIQUE INDEX todos_by_id ON todos (id);
-- `completed` comes second: one filter reads one range in order, no filter merges the two ranges.
CREATE INDEX todos_by_priority ON todos (user_id, completed, priority, created_at, id);
CREATE INDEX todos_by_title ON todos (user_id, completed, title_key, created_at, id);

CREATE TRIGGER users_cascade AFTER DELETE ON users BEGIN
    DELETE FROM sessions WHERE user_id = OLD.id;
    DELETE FROM todo_counts WHERE user_id = OLD.id;
    DELETE FROM todos WHERE user_id = OLD.id;
END;
CREATE TRIGGER todos_rules_insert BEFORE INSERT ON todos
WHEN trim(NEW.title, char(9, 10, 11, 12, 13, 32, 133, 160, 5760, 8192, 8193, 8194,
    8195, 8196, 8197, 8198, 8199, 8200, 8201, 8202, 8232, 8233, 8239, 8287, 12288)) = '' BEGIN
    SELECT RAISE(ABORT, 'CHECK constraint failed: todos_rules');
END;
CREATE TRIGGER todos_rules_update BEFORE UPDATE OF title ON todos
WHEN NEW.title <> OLD.title AND trim(NEW.title, char(9, 10, 11, 12, 13, 32, 133, 160, 5760, 8192, 8193, 8194,
    8195, 8196, 8197, 8198, 8199, 8200, 8201, 8202, 8232, 8233, 8239, 8287, 12288)) = '' BEGIN
    SELECT RAISE(ABORT, 'CHECK constraint failed: todos_rules');
END;
CREATE TRIGGER todos_count_insert AFTER INSERT ON todos BEGIN
    UPDATE todo_counts SET pending = pending + (1 - NEW.completed), completed = completed + NEW.completed
    WHERE user_id = NEW.user_id;
END;
CREATE TRIGGER todos_count_delete AFTER DELETE ON todos BEGIN
    UPDATE todo_counts SET pending = pending - (1 - OLD.completed), completed = completed - OLD.completed
    WHERE user_id = OLD.user_id;
END;
CREATE TRIGGER todos_count_update AFTER UPDATE OF completed ON todos
WHEN NEW.completed <> OLD.completed AND NEW.user_id = OLD.user_id BEGIN
    UPDATE todo_counts
    SET pending = pending + OLD.completed - NEW.completed, completed = completed + NEW.completed - OLD.completed
    WHERE user_id = NEW.user_id;
END;
CREATE TRIGGER todos_count_move AFTER UPDATE OF user_id ON todos WHEN NEW.user_id <> OLD.user_id BEGIN
    UPDATE todo_counts SET pending = pending - (1 - OLD.completed), completed = completed - OLD.completed
    WHERE user_id = OLD.user_id;
    UPDATE todo_counts SET pending = pending + (1 - NEW.completed), completed = completed + NEW.completed
    WHERE user_id = NEW.user_id;
END;
