DROP INDEX todos_by_id;
DROP INDEX todos_by_priority;
DROP INDEX todos_by_title;
DROP TRIGGER todos_count_insert;
DROP TRIGGER todos_count_delete;
DROP TRIGGER todos_count_update;
ALTER TABLE todos RENAME TO todos_before;

CREATE TABLE todos (
    id           BLOB    NOT NULL PRIMARY KEY CHECK (length(id) = 16),
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
    CHECK (completed = (completed_at IS NOT NULL))
) STRICT, WITHOUT ROWID;

INSERT INTO todos (id, user_id, title, title_key, description, priority, completed, created_at, updated_at, completed_at)
SELECT id, user_id, title, title_key, description, priority, completed, created_at, updated_at, completed_at
FROM todos_before;
DROP TABLE todos_before;

CREATE INDEX todos_by_created ON todos (user_id, completed, created_at, id);
CREATE INDEX todos_by_priority ON todos (user_id, completed, priority, created_at, id);
CREATE INDEX todos_by_title ON todos (user_id, completed, title_key, created_at, id);

CREATE TRIGGER todos_count_insert AFTER INSERT ON todos BEGIN
    UPDATE todo_counts SET pending = pending + (1 - NEW.completed), completed = completed + NEW.completed
    WHERE user_id = NEW.user_id;
END;
CREATE TRIGGER todos_count_delete AFTER DELETE ON todos BEGIN
    UPDATE todo_counts SET pending = pending - (1 - OLD.completed), completed = completed - OLD.completed
    WHERE user_id = OLD.user_id;
END;
CREATE TRIGGER todos_count_update AFTER UPDATE OF completed ON todos WHEN NEW.completed <> OLD.completed BEGIN
    UPDATE todo_counts
    SET pending = pending + OLD.completed - NEW.completed, completed = completed + NEW.completed - OLD.completed
    WHERE user_id = NEW.user_id;
END;
