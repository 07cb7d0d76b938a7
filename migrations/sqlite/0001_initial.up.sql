-- Times are whole microseconds since the Unix epoch, ids are 16-byte UUIDs: both sort as numbers and
-- bytes. The CHECKs repeat the rules of the library, as a second line behind them.

CREATE TABLE users (
    id            BLOB    NOT NULL PRIMARY KEY CHECK (length(id) = 16),
    email         TEXT    NOT NULL UNIQUE CHECK (length(email) BETWEEN 3 AND 254 AND email = lower(email)),
    name          TEXT    NOT NULL CHECK (length(name) BETWEEN 2 AND 100),
    password_hash TEXT    NOT NULL CHECK (length(password_hash) BETWEEN 1 AND 255),
    created_at    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- One row a token that is still good; logging out deletes it.
CREATE TABLE sessions (
    id         BLOB    NOT NULL PRIMARY KEY CHECK (length(id) = 16),
    user_id    BLOB    NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL CHECK (expires_at > created_at)
) STRICT, WITHOUT ROWID;
CREATE INDEX sessions_by_user ON sessions (user_id);
CREATE INDEX sessions_by_expiry ON sessions (expires_at);

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
-- `completed` comes second: one filter reads one range in order, no filter merges the two ranges.
CREATE INDEX todos_by_created ON todos (user_id, completed, created_at, id);
CREATE INDEX todos_by_priority ON todos (user_id, completed, priority, created_at, id);
CREATE INDEX todos_by_title ON todos (user_id, completed, title_key, created_at, id);

-- What a list's `total` reads: kept in the transaction of the change, so that it costs one look-up.
CREATE TABLE todo_counts (
    user_id   BLOB    NOT NULL PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    pending   INTEGER NOT NULL DEFAULT 0 CHECK (pending >= 0),
    completed INTEGER NOT NULL DEFAULT 0 CHECK (completed >= 0)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER users_start_counting AFTER INSERT ON users BEGIN
    INSERT INTO todo_counts (user_id) VALUES (NEW.id);
END;
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

-- A sliding window of N attempts is N slots, each taken at most once in any minute.
CREATE TABLE rate_limits (
    action  TEXT    NOT NULL CHECK (action IN ('login', 'signup')),
    client  TEXT    NOT NULL CHECK (length(client) BETWEEN 1 AND 64),
    slot    INTEGER NOT NULL CHECK (slot >= 0),
    taken_at INTEGER NOT NULL,
    -- 0 while the attempt still runs, 1 once it counts
    settled INTEGER NOT NULL CHECK (settled IN (0, 1)),
    PRIMARY KEY (action, client, slot)
) STRICT, WITHOUT ROWID;
CREATE INDEX rate_limits_by_time ON rate_limits (taken_at);
