-- The columns that todos need for tags, due dates, lists and search; the log of each user's changes; the
-- trash; the answers to requests with a key.

-- The locks of all tables that change, at once. Statements of running replicas may hold them in another
-- order: the wait is shorter than deadlock_timeout, so that this gives way and no request fails.
SET LOCAL lock_timeout = '500ms';
DO $$
BEGIN
    FOR attempt IN 1..40 LOOP
        BEGIN
            LOCK TABLE users IN SHARE ROW EXCLUSIVE MODE;
            LOCK TABLE todos, todo_counts IN ACCESS EXCLUSIVE MODE;
            RETURN;
        EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
            PERFORM pg_sleep(0.5);
        END;
    END LOOP;
    RAISE EXCEPTION 'other transactions hold locks on users, todos or todo_counts: end them, and migrate again'
        USING ERRCODE = 'lock_not_available';
END $$;
SET LOCAL lock_timeout = 0;

-- NOT VALID, since the rows of now have the defaults: no row is read, however many there are.
ALTER TABLE todos
    ADD COLUMN search     text COLLATE "C",
    -- a JSON array of the sorted names
    ADD COLUMN tags       text COLLATE "C" NOT NULL DEFAULT '[]',
    ADD COLUMN list_id    uuid,
    ADD COLUMN parent_id  uuid,
    ADD COLUMN position   text COLLATE "C",
    -- days since 1970-01-01, in no time zone
    ADD COLUMN due_date   bigint,
    ADD COLUMN due_minute bigint,
    ADD COLUMN due_zone   text COLLATE "C",
    -- the instant of date, minute and zone
    ADD COLUMN due_at     timestamptz,
    -- A key that sorts undated todos last in both directions.
    ADD COLUMN undated    boolean NOT NULL DEFAULT TRUE,
    ADD COLUMN due_key    bigint NOT NULL DEFAULT 0,
    ADD COLUMN rule       text COLLATE "C",
    -- 1 the due date, 2 the completion
    ADD COLUMN rule_from  smallint,
    ADD COLUMN series_id  uuid,
    ADD COLUMN occurrence bigint,
    ADD CONSTRAINT todos_tags CHECK (tags = '[]' OR json_typeof(CAST(tags AS json)) = 'array') NOT VALID,
    ADD CONSTRAINT todos_due_minute CHECK (due_minute BETWEEN 0 AND 1439) NOT VALID,
    ADD CONSTRAINT todos_due_time CHECK (
        (due_minute IS NULL) = (due_zone IS NULL) AND (due_minute IS NULL) = (due_at IS NULL)
        AND (due_minute IS NULL OR due_date IS NOT NULL)) NOT VALID,
    ADD CONSTRAINT todos_undated CHECK (undated = (due_date IS NULL)) NOT VALID,
    ADD CONSTRAINT todos_rule_from CHECK (rule_from IN (1, 2)) NOT VALID,
    ADD CONSTRAINT todos_rule CHECK (rule IS NULL OR (due_date IS NOT NULL AND series_id IS NOT NULL)) NOT VALID;

-- The number of the user's last change. A write takes its locks in this order: rows, this row, the log.
ALTER TABLE todo_counts ADD COLUMN seq bigint NOT NULL DEFAULT 0,
    ADD CONSTRAINT todo_counts_seq CHECK (seq >= 0) NOT VALID;

-- `epoch` is random. A number of a change is valid with the epoch that it was read with.
CREATE TABLE meta (
    name  text COLLATE "C" PRIMARY KEY,
    value text NOT NULL
);
INSERT INTO meta (name, value) VALUES ('epoch', left(replace(CAST(gen_random_uuid() AS text), '-', ''), 16));

-- What changed, in the order of the commits. The numbers of a user have no gaps. Only triggers write it,
-- for a user that has a counter; it goes with the user by `users_cascade`. A foreign key would be asked at
-- each write, and took a tenth of a patch.
CREATE TABLE changes (
    user_id     uuid     NOT NULL,
    seq         bigint   NOT NULL CHECK (seq > 0),
    -- 1 a todo is new or changed, 2 a todo is gone, 3 a tag, 4 a reminder, 5 a list
    kind        smallint NOT NULL CHECK (kind > 0),
    todo_id     uuid,
    tag         text     COLLATE "C",
    reminder_id uuid,
    list_id     uuid,
    PRIMARY KEY (user_id, seq),
    CHECK (kind > 2 OR todo_id IS NOT NULL)
);

-- The answers to requests with a key, by which a repeated request is answered.
CREATE TABLE idempotency (
    user_id     uuid        NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    key         text        COLLATE "C" NOT NULL CHECK (char_length(key) BETWEEN 1 AND 255),
    -- a hash of the request: the same key with another request is an error
    fingerprint bytea       NOT NULL,
    status      smallint    NOT NULL,
    answer      text        NOT NULL,
    location    text,
    etag        text,
    made_at     timestamptz NOT NULL,
    PRIMARY KEY (user_id, key)
);
CREATE INDEX idempotency_by_time ON idempotency (made_at);
-- The long answers of a user, whose size has a limit.
CREATE INDEX idempotency_long ON idempotency (user_id, octet_length(answer)) WHERE octet_length(answer) > 8192;

-- Deleted todos: the columns of `todos` in their order, and one more.
CREATE TABLE trash (
    LIKE todos INCLUDING DEFAULTS,
    deleted_at timestamptz NOT NULL,
    PRIMARY KEY (id),
    FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE CASCADE
);
CREATE INDEX trash_by_user ON trash (user_id, deleted_at, id);
-- for the clean-up of expired todos
CREATE INDEX trash_by_time ON trash (deleted_at);

-- Each write of a todo is counted, numbered and logged. AFTER, so that the statement holds all its rows
-- when it locks the counter: BEFORE, it would hold the counter while it waits for its next row. Counters
-- of several users are locked in the order of their ids.
DROP TRIGGER todos_count_updated ON todos;
DROP TRIGGER todos_count_moved ON todos;
DROP FUNCTION todos_count_updated();
DROP FUNCTION todos_count_moved();
CREATE OR REPLACE FUNCTION todos_count_inserted() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    WITH added AS (
        SELECT user_id, count(*) AS n, count(*) FILTER (WHERE completed) AS completed
        FROM inserted GROUP BY user_id),
    locked AS MATERIALIZED (
        SELECT user_id FROM todo_counts WHERE user_id IN (SELECT user_id FROM added)
        ORDER BY user_id FOR UPDATE),
    counted AS (
        UPDATE todo_counts AS counts
        SET pending = counts.pending + added.n - added.completed,
            completed = counts.completed + added.completed, seq = counts.seq + added.n
        FROM added JOIN locked USING (user_id) WHERE counts.user_id = added.user_id
        RETURNING counts.user_id, counts.seq - added.n AS base)
    INSERT INTO changes (user_id, seq, kind, todo_id)
    SELECT user_id, base + row_number() OVER (PARTITION BY user_id ORDER BY id), 1, id
    FROM inserted JOIN counted USING (user_id);
    RETURN NULL;
END $$;
-- Not if the user is deleted: the user's counter and log are deleted too.
CREATE OR REPLACE FUNCTION todos_count_deleted() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    WITH gone AS (
        SELECT user_id, count(*) AS n, count(*) FILTER (WHERE completed) AS completed
        FROM deleted WHERE EXISTS (SELECT FROM users WHERE users.id = deleted.user_id) GROUP BY user_id),
    locked AS MATERIALIZED (
        SELECT user_id FROM todo_counts WHERE user_id IN (SELECT user_id FROM gone)
        ORDER BY user_id FOR UPDATE),
    counted AS (
        UPDATE todo_counts AS counts
        SET pending = counts.pending - gone.n + gone.completed,
            completed = counts.completed - gone.completed, seq = counts.seq + gone.n
        FROM gone JOIN locked USING (user_id) WHERE counts.user_id = gone.user_id
        RETURNING counts.user_id, counts.seq - gone.n AS base)
    INSERT INTO changes (user_id, seq, kind, todo_id)
    SELECT user_id, base + row_number() OVER (PARTITION BY user_id ORDER BY id), 2, id
    FROM deleted JOIN counted USING (user_id);
    RETURN NULL;
END $$;
-- A row's trigger: for one row it takes two thirds of the time of a statement's.
CREATE FUNCTION todos_updated() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    WITH counted AS (
        UPDATE todo_counts AS counts
        SET pending = counts.pending + OLD.completed::int - NEW.completed::int,
            completed = counts.completed + NEW.completed::int - OLD.completed::int, seq = counts.seq + 1
        WHERE user_id = NEW.user_id RETURNING user_id, seq)
    INSERT INTO changes (user_id, seq, kind, todo_id) SELECT user_id, seq, 1, NEW.id FROM counted;
    RETURN NULL;
END $$;
-- All columns but those derived for search and sorting: the library may fill these in later.
CREATE TRIGGER todos_updated AFTER UPDATE OF title, description, priority, completed, created_at, updated_at,
    completed_at, tags, list_id, parent_id, position, due_date, due_minute, due_zone, due_at, undated, due_key,
    rule, rule_from, series_id, occurrence ON todos FOR EACH ROW
    WHEN (NEW.user_id = OLD.user_id AND NEW.id = OLD.id) EXECUTE FUNCTION todos_updated();
-- A todo that is given to another user, or another id, is gone here and new there.
CREATE FUNCTION todos_moved() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM todo_counts WHERE user_id IN (OLD.user_id, NEW.user_id) ORDER BY user_id FOR UPDATE;
    WITH counted AS (
        UPDATE todo_counts AS counts
        SET pending = counts.pending - 1 + OLD.completed::int,
            completed = counts.completed - OLD.completed::int, seq = counts.seq + 1
        WHERE user_id = OLD.user_id RETURNING user_id, seq)
    INSERT INTO changes (user_id, seq, kind, todo_id) SELECT user_id, seq, 2, OLD.id FROM counted;
    WITH counted AS (
        UPDATE todo_counts AS counts
        SET pending = counts.pending + 1 - NEW.completed::int,
            completed = counts.completed + NEW.completed::int, seq = counts.seq + 1
        WHERE user_id = NEW.user_id RETURNING user_id, seq)
    INSERT INTO changes (user_id, seq, kind, todo_id) SELECT user_id, seq, 1, NEW.id FROM counted;
    RETURN NULL;
END $$;
CREATE TRIGGER todos_moved AFTER UPDATE OF user_id, id ON todos FOR EACH ROW
    WHEN (NEW.user_id <> OLD.user_id OR NEW.id <> OLD.id) EXECUTE FUNCTION todos_moved();
-- The log keeps the last 10,000 entries of a user. They are a range, since the numbers have no gaps.
CREATE FUNCTION changes_prune() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM changes WHERE user_id = NEW.user_id AND seq <= NEW.seq - 10000;
    RETURN NULL;
END $$;
CREATE TRIGGER changes_prune AFTER INSERT ON changes FOR EACH ROW
    WHEN (NEW.seq % 64 = 0) EXECUTE FUNCTION changes_prune();

-- TRUNCATE fires no trigger of rows, so that the log misses what it did: all numbers end.
CREATE FUNCTION changes_restart() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE meta SET value = left(replace(CAST(gen_random_uuid() AS text), '-', ''), 16) WHERE name = 'epoch';
    RETURN NULL;
END $$;
CREATE TRIGGER changes_restart AFTER TRUNCATE ON todos
    FOR EACH STATEMENT EXECUTE FUNCTION changes_restart();
CREATE TRIGGER changes_restart AFTER TRUNCATE ON changes
    FOR EACH STATEMENT EXECUTE FUNCTION changes_restart();
CREATE OR REPLACE FUNCTION todo_counts_recount() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM changes WHERE NOT EXISTS (SELECT FROM users WHERE users.id = changes.user_id);
    INSERT INTO todo_counts (user_id, pending, completed, seq)
    SELECT users.id, count(*) FILTER (WHERE NOT todos.completed), count(*) FILTER (WHERE todos.completed),
           coalesce((SELECT max(seq) FROM changes WHERE changes.user_id = users.id), 0)
    FROM users LEFT JOIN todos ON todos.user_id = users.id GROUP BY users.id;
    RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION users_cascade() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM sessions WHERE user_id = OLD.id;
    DELETE FROM todos WHERE user_id = OLD.id;
    DELETE FROM todo_counts WHERE user_id = OLD.id;
    DELETE FROM changes WHERE user_id = OLD.id;
    DELETE FROM idempotency WHERE user_id = OLD.id;
    DELETE FROM trash WHERE user_id = OLD.id;
    RETURN NULL;
END $$;

-- An INSERT moves a todo to the trash, as it is when it is deleted: a patch that commits meanwhile is not
-- lost. `guard` is the version (updated_at) that the statement has found, or NULL for any; if the todo has
-- another one by now, nothing happens and no row is returned. A condition with several versions belongs
-- into the statement's SELECT. A statement that deletes several todos must lock them first: this trigger
-- locks the counter between two rows.
CREATE VIEW deletions AS SELECT id, user_id, updated_at AS guard, deleted_at FROM trash;
CREATE FUNCTION deletions_insert() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    WITH gone AS (
        DELETE FROM todos
        WHERE id = NEW.id AND user_id = NEW.user_id AND (NEW.guard IS NULL OR updated_at = NEW.guard)
        RETURNING *)
    INSERT INTO trash SELECT gone.*, NEW.deleted_at FROM gone;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER deletions_insert INSTEAD OF INSERT ON deletions
    FOR EACH ROW EXECUTE FUNCTION deletions_insert();
-- A todo that is restored leaves the trash. Its version is a new one, so a new todo costs nothing here.
CREATE FUNCTION todos_restored() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM trash WHERE id = NEW.id;
    RETURN NULL;
END $$;
CREATE TRIGGER todos_restored AFTER INSERT ON todos FOR EACH ROW
    WHEN (NEW.updated_at > NEW.created_at) EXECUTE FUNCTION todos_restored();

-- A new todo and the answer to its request, by one statement: there is never the one without the other.
CREATE VIEW keyed_todos AS
    SELECT idempotency.key, idempotency.fingerprint, idempotency.status, idempotency.answer,
           idempotency.location, idempotency.etag, todos.*
    FROM idempotency JOIN todos ON todos.user_id = idempotency.user_id;
CREATE FUNCTION keyed_todos_insert() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- A key is free again after a day.
    DELETE FROM idempotency
    WHERE user_id = NEW.user_id AND key = NEW.key AND made_at < NEW.created_at - interval '24 hours';
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
    RETURN NEW;
END $$;
CREATE TRIGGER keyed_todos_insert INSTEAD OF INSERT ON keyed_todos
    FOR EACH ROW EXECUTE FUNCTION keyed_todos_insert();

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
        EXECUTE format('GRANT SELECT, INSERT, DELETE ON changes, idempotency, trash TO %s', writer);
        -- to lock rows of the trash before they are restored
        EXECUTE format('GRANT UPDATE (deleted_at) ON trash TO %s', writer);
        EXECUTE format('GRANT SELECT ON meta TO %s', writer);
        EXECUTE format('GRANT SELECT, INSERT ON deletions, keyed_todos TO %s', writer);
        EXECUTE format('GRANT UPDATE (seq) ON todo_counts TO %s', writer);
    END LOOP;
END $$;
