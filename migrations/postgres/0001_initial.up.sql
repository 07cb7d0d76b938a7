-- The CHECKs repeat the rules of the library, as a second line behind them. Text is compared bytewise
-- (COLLATE "C"), so that its order is that of SQLite.

CREATE TABLE users (
    id            uuid        PRIMARY KEY,
    email         text        COLLATE "C" NOT NULL UNIQUE CHECK (char_length(email) BETWEEN 3 AND 254 AND email = lower(email)),
    name          text        NOT NULL CHECK (char_length(name) BETWEEN 2 AND 100),
    password_hash text        NOT NULL CHECK (char_length(password_hash) BETWEEN 1 AND 255),
    created_at    timestamptz NOT NULL
);

-- One row a token that is still good; logging out deletes it.
CREATE TABLE sessions (
    id         uuid        PRIMARY KEY,
    user_id    uuid        NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL CHECK (expires_at > created_at)
);
CREATE INDEX sessions_by_user ON sessions (user_id);
CREATE INDEX sessions_by_expiry ON sessions (expires_at);

CREATE TABLE todos (
    id           uuid        PRIMARY KEY,
    user_id      uuid        NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    title        text        NOT NULL CHECK (char_length(title) BETWEEN 1 AND 200),
    -- the title in lower case, folded by the library: its bytes order titles alike on every database
    title_key    text        COLLATE "C" NOT NULL CHECK (char_length(title_key) >= 1),
    description  text        CHECK (char_length(description) <= 1000),
    -- 1 low, 2 medium, 3 high
    priority     smallint    NOT NULL CHECK (priority BETWEEN 1 AND 3),
    completed    boolean     NOT NULL,
    created_at   timestamptz NOT NULL,
    updated_at   timestamptz NOT NULL CHECK (updated_at >= created_at),
    completed_at timestamptz,
    CHECK (completed = (completed_at IS NOT NULL))
) WITH (fillfactor = 90);
-- `completed` comes second: one filter reads one range in order, no filter merges the two ranges.
CREATE INDEX todos_by_created ON todos (user_id, completed, created_at, id);
CREATE INDEX todos_by_priority ON todos (user_id, completed, priority, created_at, id);
CREATE INDEX todos_by_title ON todos (user_id, completed, title_key, created_at, id);

-- What a list's `total` reads: kept in the transaction of the change, so that it costs one look-up.
CREATE TABLE todo_counts (
    user_id   uuid   PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    pending   bigint NOT NULL DEFAULT 0 CHECK (pending >= 0),
    completed bigint NOT NULL DEFAULT 0 CHECK (completed >= 0)
) WITH (fillfactor = 50);

CREATE FUNCTION users_start_counting() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO todo_counts (user_id) VALUES (NEW.id);
    RETURN NULL;
END $$;
CREATE TRIGGER users_start_counting AFTER INSERT ON users
    FOR EACH ROW EXECUTE FUNCTION users_start_counting();

-- Rows come and go by the statement, so that a bulk load updates a count once and not once a row.
CREATE FUNCTION todos_count_inserted() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE todo_counts AS counts
    SET pending = counts.pending + added.pending, completed = counts.completed + added.completed
    FROM (SELECT user_id, count(*) FILTER (WHERE NOT completed) AS pending,
                 count(*) FILTER (WHERE completed) AS completed
          FROM inserted GROUP BY user_id) AS added
    WHERE counts.user_id = added.user_id;
    RETURN NULL;
END $$;
CREATE TRIGGER todos_count_inserted AFTER INSERT ON todos REFERENCING NEW TABLE AS inserted
    FOR EACH STATEMENT EXECUTE FUNCTION todos_count_inserted();

CREATE FUNCTION todos_count_deleted() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE todo_counts AS counts
    SET pending = counts.pending - gone.pending, completed = counts.completed - gone.completed
    FROM (SELECT user_id, count(*) FILTER (WHERE NOT completed) AS pending,
                 count(*) FILTER (WHERE completed) AS completed
          FROM deleted GROUP BY user_id) AS gone
    WHERE counts.user_id = gone.user_id;
    RETURN NULL;
END $$;
CREATE TRIGGER todos_count_deleted AFTER DELETE ON todos REFERENCING OLD TABLE AS deleted
    FOR EACH STATEMENT EXECUTE FUNCTION todos_count_deleted();

-- Most updates leave `completed` alone and cost nothing here, which only a row's trigger can know.
CREATE FUNCTION todos_count_updated() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE todo_counts
    SET pending = pending + OLD.completed::int - NEW.completed::int,
        completed = todo_counts.completed + NEW.completed::int - OLD.completed::int
    WHERE user_id = NEW.user_id;
    RETURN NULL;
END $$;
CREATE TRIGGER todos_count_updated AFTER UPDATE OF completed ON todos
    FOR EACH ROW WHEN (NEW.completed IS DISTINCT FROM OLD.completed)
    EXECUTE FUNCTION todos_count_updated();

-- A sliding window of N attempts is N slots, each taken at most once in any minute.
CREATE TABLE rate_limits (
    action   text        COLLATE "C" NOT NULL CHECK (action IN ('login', 'signup')),
    client   text        COLLATE "C" NOT NULL CHECK (char_length(client) BETWEEN 1 AND 64),
    slot     bigint      NOT NULL CHECK (slot >= 0),
    taken_at timestamptz NOT NULL,
    -- false while the attempt still runs, true once it counts
    settled  boolean     NOT NULL,
    PRIMARY KEY (action, client, slot)
);
CREATE INDEX rate_limits_by_time ON rate_limits (taken_at);
