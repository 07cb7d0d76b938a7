-- Tags, lists and the order of todos: what is derived from their rows, and what the rows need for reminders
-- and iCalendar.

-- The locks of all tables that change, at once. Statements of running replicas may hold them in another
-- order: the wait is shorter than deadlock_timeout, so that this gives way and no request fails.
SET LOCAL lock_timeout = '500ms';
DO $$
BEGIN
    FOR attempt IN 1..40 LOOP
        BEGIN
            LOCK TABLE users IN SHARE ROW EXCLUSIVE MODE;
            LOCK TABLE todos, trash IN ACCESS EXCLUSIVE MODE;
            RETURN;
        EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
            PERFORM pg_sleep(0.5);
        END;
    END LOOP;
    RAISE EXCEPTION 'other transactions hold locks on users, todos or trash: end them, and migrate again'
        USING ERRCODE = 'lock_not_available';
END $$;
SET LOCAL lock_timeout = 0;

ALTER TABLE todos
    ADD COLUMN reminders text COLLATE "C" NOT NULL DEFAULT '[]',
    -- properties of an imported todo that have no column, as lines of iCalendar
    ADD COLUMN ical      text COLLATE "C",
    ADD CONSTRAINT todos_reminders CHECK (reminders = '[]'
        OR (json_typeof(CAST(reminders AS json)) = 'array' AND due_date IS NOT NULL)) NOT VALID;

-- Indexes of some todos only: a todo without a date, a list or a position is in none of them.
CREATE INDEX todos_by_due ON todos (user_id, completed, due_key, created_at, id) WHERE due_date IS NOT NULL;
CREATE INDEX todos_by_list ON todos (user_id, list_id, completed, created_at, id) WHERE list_id IS NOT NULL;
CREATE INDEX todos_by_position ON todos (user_id, completed, position, created_at, id) WHERE position IS NOT NULL;
-- A series has one todo for each occurrence.
CREATE UNIQUE INDEX todos_by_series ON todos (series_id, occurrence) WHERE series_id IS NOT NULL;
-- The library fills in `search`, since no database folds texts as it does.
CREATE INDEX todos_unfolded ON todos (user_id, id) WHERE search IS NULL;

-- The trash has the columns of `todos` in their order, and `deleted_at` after them: running replicas insert
-- whole rows. Here it is made anew, since PostgreSQL adds a column at the end.
DROP VIEW deletions;
ALTER TABLE trash RENAME TO trash_before;
ALTER TABLE trash_before RENAME CONSTRAINT trash_pkey TO trash_before_pkey;
ALTER TABLE trash_before RENAME CONSTRAINT trash_user_id_fkey TO trash_before_user_id_fkey;
ALTER INDEX trash_by_user RENAME TO trash_before_by_user;
ALTER INDEX trash_by_time RENAME TO trash_before_by_time;
CREATE TABLE trash (
    LIKE todos INCLUDING DEFAULTS,
    deleted_at timestamptz NOT NULL,
    PRIMARY KEY (id),
    FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE CASCADE
);
INSERT INTO trash (id, user_id, title, title_key, description, priority, completed, created_at, updated_at,
                   completed_at, search, tags, list_id, parent_id, position, due_date, due_minute, due_zone, due_at,
                   undated, due_key, rule, rule_from, series_id, occurrence, deleted_at)
SELECT id, user_id, title, title_key, description, priority, completed, created_at, updated_at, completed_at,
       search, tags, list_id, parent_id, position, due_date, due_minute, due_zone, due_at, undated, due_key, rule,
       rule_from, series_id, occurrence, deleted_at
FROM trash_before;
CREATE INDEX trash_by_user ON trash (user_id, deleted_at, id);
CREATE INDEX trash_by_time ON trash (deleted_at);
CREATE VIEW deletions AS SELECT id, user_id, updated_at AS guard, deleted_at FROM trash;
CREATE TRIGGER deletions_insert INSTEAD OF INSERT ON deletions
    FOR EACH ROW EXECUTE FUNCTION deletions_insert();

-- The number of a user's todos with a tag. A tag without todos is no row. Only triggers write it.
CREATE TABLE tags (
    user_id   uuid   NOT NULL,
    tag       text   COLLATE "C" NOT NULL,
    pending   bigint NOT NULL CHECK (pending >= 0),
    completed bigint NOT NULL CHECK (completed >= 0),
    PRIMARY KEY (user_id, tag)
) WITH (fillfactor = 50);
-- The todos of a tag in the default order of lists. Only triggers write it.
CREATE TABLE todo_tags (
    user_id    uuid        NOT NULL,
    tag        text        COLLATE "C" NOT NULL,
    completed  boolean     NOT NULL,
    created_at timestamptz NOT NULL,
    todo_id    uuid        NOT NULL,
    PRIMARY KEY (user_id, tag, completed, created_at, todo_id)
);

CREATE TABLE lists (
    id         uuid        PRIMARY KEY,
    user_id    uuid        NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    name       text        COLLATE "C" NOT NULL CHECK (char_length(name) BETWEEN 1 AND 100),
    -- `#rrggbb` in lower case
    color      text        COLLATE "C" CHECK (char_length(color) = 7),
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL CHECK (updated_at >= created_at),
    -- A deleted list stays until its todos are in the trash: they are moved in pieces.
    deleted_at timestamptz
);
CREATE INDEX lists_by_user ON lists (user_id, created_at, id);
CREATE INDEX lists_deleted ON lists (deleted_at) WHERE deleted_at IS NOT NULL;
-- The number of todos in a list. A list without todos may have no row. Only triggers write it. It is no
-- column of `lists`: a write of a todo would wait for a change of its list.
CREATE TABLE list_counts (
    list_id   uuid   PRIMARY KEY,
    user_id   uuid   NOT NULL,
    pending   bigint NOT NULL CHECK (pending >= 0),
    completed bigint NOT NULL CHECK (completed >= 0)
) WITH (fillfactor = 50);
CREATE INDEX list_counts_by_user ON list_counts (user_id);

-- The triggers call no other function: a role may lack the right to execute it. A writer has locked the
-- counter of its user before, so that no two writers of a user meet in the rows of tags and lists.
CREATE OR REPLACE FUNCTION todos_inserted() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    WITH counted AS (
        UPDATE todo_counts AS counts
        SET pending = counts.pending + 1 - NEW.completed::int,
            completed = counts.completed + NEW.completed::int, seq = counts.seq + 1
        WHERE user_id = NEW.user_id RETURNING user_id, seq)
    INSERT INTO changes (user_id, seq, kind, todo_id) SELECT user_id, seq, 1, NEW.id FROM counted;
    IF NEW.tags <> '[]' THEN
        INSERT INTO todo_tags (user_id, tag, completed, created_at, todo_id)
        SELECT NEW.user_id, tag, NEW.completed, NEW.created_at, NEW.id
        FROM json_array_elements_text(CAST(NEW.tags AS json)) AS tag;
        INSERT INTO tags AS counts (user_id, tag, pending, completed)
        SELECT NEW.user_id, tag, 1 - NEW.completed::int, NEW.completed::int
        FROM json_array_elements_text(CAST(NEW.tags AS json)) AS tag
        ON CONFLICT (user_id, tag) DO UPDATE
        SET pending = counts.pending + excluded.pending, completed = counts.completed + excluded.completed;
    END IF;
    IF NEW.list_id IS NOT NULL THEN
        INSERT INTO list_counts AS counts (list_id, user_id, pending, completed)
        VALUES (NEW.list_id, NEW.user_id, 1 - NEW.completed::int, NEW.completed::int)
        ON CONFLICT (list_id) DO UPDATE
        SET pending = counts.pending + excluded.pending, completed = counts.completed + excluded.completed;
    END IF;
    RETURN NULL;
END $$;
CREATE OR REPLACE FUNCTION todos_updated() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    WITH counted AS (
        UPDATE todo_counts AS counts
        SET pending = counts.pending + OLD.completed::int - NEW.completed::int,
            completed = counts.completed + NEW.completed::int - OLD.completed::int, seq = counts.seq + 1
        WHERE user_id = NEW.user_id RETURNING user_id, seq)
    INSERT INTO changes (user_id, seq, kind, todo_id) SELECT user_id, seq, 1, NEW.id FROM counted;
    IF OLD.tags <> NEW.tags OR (NEW.tags <> '[]'
        AND (OLD.completed <> NEW.completed OR OLD.created_at <> NEW.created_at)) THEN
        DELETE FROM todo_tags
        WHERE user_id = OLD.user_id AND tag IN (SELECT json_array_elements_text(CAST(OLD.tags AS json)))
          AND completed = OLD.completed AND created_at = OLD.created_at AND todo_id = OLD.id;
        INSERT INTO todo_tags (user_id, tag, completed, created_at, todo_id)
        SELECT NEW.user_id, tag, NEW.completed, NEW.created_at, NEW.id
        FROM json_array_elements_text(CAST(NEW.tags AS json)) AS tag;
        -- The new counts first, so that a tag that stays does not end and begin again.
        INSERT INTO tags AS counts (user_id, tag, pending, completed)
        SELECT NEW.user_id, tag, 1 - NEW.completed::int, NEW.completed::int
        FROM json_array_elements_text(CAST(NEW.tags AS json)) AS tag
        ON CONFLICT (user_id, tag) DO UPDATE
        SET pending = counts.pending + excluded.pending, completed = counts.completed + excluded.completed;
        UPDATE tags SET pending = pending - 1 + OLD.completed::int, completed = tags.completed - OLD.completed::int
        WHERE user_id = OLD.user_id AND tag IN (SELECT json_array_elements_text(CAST(OLD.tags AS json)));
        DELETE FROM tags
        WHERE user_id = OLD.user_id AND tag IN (SELECT json_array_elements_text(CAST(OLD.tags AS json)))
          AND pending = 0 AND completed = 0;
    END IF;
    IF OLD.list_id IS DISTINCT FROM NEW.list_id OR (NEW.list_id IS NOT NULL AND OLD.completed <> NEW.completed) THEN
        IF NEW.list_id IS NOT NULL THEN
            INSERT INTO list_counts AS counts (list_id, user_id, pending, completed)
            VALUES (NEW.list_id, NEW.user_id, 1 - NEW.completed::int, NEW.completed::int)
            ON CONFLICT (list_id) DO UPDATE
            SET pending = counts.pending + excluded.pending, completed = counts.completed + excluded.completed;
        END IF;
        UPDATE list_counts
        SET pending = pending - 1 + OLD.completed::int, completed = list_counts.completed - OLD.completed::int
        WHERE list_id = OLD.list_id;
    END IF;
    RETURN NULL;
END $$;
DROP TRIGGER todos_updated ON todos;
-- Not of `position`: todos get their first position, or another one in the same order, in large numbers, which
-- changes nothing that a client has. A todo that is moved has a new `updated_at`.
CREATE TRIGGER todos_updated AFTER UPDATE OF title, description, priority, completed, created_at, updated_at,
    completed_at, tags, list_id, parent_id, due_date, due_minute, due_zone, due_at, undated, due_key,
    rule, rule_from, series_id, occurrence, reminders, ical ON todos FOR EACH ROW
    WHEN (NEW.user_id = OLD.user_id AND NEW.id = OLD.id) EXECUTE FUNCTION todos_updated();
CREATE OR REPLACE FUNCTION todos_moved() RETURNS trigger LANGUAGE plpgsql AS $$
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
    DELETE FROM todo_tags
    WHERE user_id = OLD.user_id AND tag IN (SELECT json_array_elements_text(CAST(OLD.tags AS json)))
      AND completed = OLD.completed AND created_at = OLD.created_at AND todo_id = OLD.id;
    INSERT INTO todo_tags (user_id, tag, completed, created_at, todo_id)
    SELECT NEW.user_id, tag, NEW.completed, NEW.created_at, NEW.id
    FROM json_array_elements_text(CAST(NEW.tags AS json)) AS tag;
    INSERT INTO tags AS counts (user_id, tag, pending, completed)
    SELECT NEW.user_id, tag, 1 - NEW.completed::int, NEW.completed::int
    FROM json_array_elements_text(CAST(NEW.tags AS json)) AS tag
    ON CONFLICT (user_id, tag) DO UPDATE
    SET pending = counts.pending + excluded.pending, completed = counts.completed + excluded.completed;
    UPDATE tags SET pending = pending - 1 + OLD.completed::int, completed = tags.completed - OLD.completed::int
    WHERE user_id = OLD.user_id AND tag IN (SELECT json_array_elements_text(CAST(OLD.tags AS json)));
    DELETE FROM tags
    WHERE user_id = OLD.user_id AND tag IN (SELECT json_array_elements_text(CAST(OLD.tags AS json)))
      AND pending = 0 AND completed = 0;
    IF NEW.list_id IS NOT NULL THEN
        INSERT INTO list_counts AS counts (list_id, user_id, pending, completed)
        VALUES (NEW.list_id, NEW.user_id, 1 - NEW.completed::int, NEW.completed::int)
        ON CONFLICT (list_id) DO UPDATE
        SET pending = counts.pending + excluded.pending, completed = counts.completed + excluded.completed;
    END IF;
    UPDATE list_counts
    SET pending = pending - 1 + OLD.completed::int, completed = list_counts.completed - OLD.completed::int
    WHERE list_id = OLD.list_id;
    RETURN NULL;
END $$;
-- Not if the user is deleted: the user's counter, log, tags and lists are deleted too.
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
    IF EXISTS (SELECT FROM deleted WHERE tags <> '[]') THEN
        WITH gone AS MATERIALIZED (
            SELECT user_id, tag, completed, created_at, id
            FROM deleted, json_array_elements_text(CAST(tags AS json)) AS tag)
        DELETE FROM todo_tags USING gone
        WHERE todo_tags.user_id = gone.user_id AND todo_tags.tag = gone.tag
          AND todo_tags.completed = gone.completed AND todo_tags.created_at = gone.created_at
          AND todo_tags.todo_id = gone.id;
        WITH gone AS MATERIALIZED (
            SELECT user_id, tag, count(*) AS n, count(*) FILTER (WHERE completed) AS completed
            FROM deleted, json_array_elements_text(CAST(tags AS json)) AS tag GROUP BY user_id, tag)
        UPDATE tags SET pending = tags.pending - gone.n + gone.completed,
            completed = tags.completed - gone.completed
        FROM gone WHERE tags.user_id = gone.user_id AND tags.tag = gone.tag;
        DELETE FROM tags WHERE pending = 0 AND completed = 0 AND (user_id, tag) IN (
            SELECT DISTINCT user_id, tag FROM deleted, json_array_elements_text(CAST(tags AS json)) AS tag);
    END IF;
    IF EXISTS (SELECT FROM deleted WHERE list_id IS NOT NULL) THEN
        UPDATE list_counts SET pending = list_counts.pending - gone.n + gone.completed,
            completed = list_counts.completed - gone.completed
        FROM (SELECT list_id, count(*) AS n, count(*) FILTER (WHERE completed) AS completed
              FROM deleted WHERE list_id IS NOT NULL GROUP BY list_id) AS gone
        WHERE list_counts.list_id = gone.list_id;
    END IF;
    RETURN NULL;
END $$;

-- A tag is new or gone. Its numbers follow from the changes of its todos.
CREATE FUNCTION tags_changed() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    owner uuid := CASE TG_OP WHEN 'INSERT' THEN NEW.user_id ELSE OLD.user_id END;
    name  text := CASE TG_OP WHEN 'INSERT' THEN NEW.tag ELSE OLD.tag END;
BEGIN
    WITH counted AS (UPDATE todo_counts AS counts SET seq = counts.seq + 1 WHERE user_id = owner RETURNING user_id, seq)
    INSERT INTO changes (user_id, seq, kind, tag) SELECT user_id, seq, 3, name FROM counted;
    RETURN NULL;
END $$;
CREATE TRIGGER tags_changed AFTER INSERT OR DELETE ON tags FOR EACH ROW EXECUTE FUNCTION tags_changed();
CREATE FUNCTION lists_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    WITH counted AS (
        UPDATE todo_counts AS counts SET seq = counts.seq + 1 WHERE user_id = NEW.user_id RETURNING user_id, seq)
    INSERT INTO changes (user_id, seq, kind, list_id) SELECT user_id, seq, 5, NEW.id FROM counted;
    RETURN NULL;
END $$;
-- A list is gone when it is marked as deleted; the later deletion of its row is no change.
CREATE TRIGGER lists_changed AFTER INSERT OR UPDATE ON lists FOR EACH ROW EXECUTE FUNCTION lists_changed();
CREATE FUNCTION lists_deleted() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM list_counts WHERE list_id = OLD.id;
    RETURN NULL;
END $$;
CREATE TRIGGER lists_deleted AFTER DELETE ON lists FOR EACH ROW EXECUTE FUNCTION lists_deleted();

-- A statement that changes a text and not `search`, as of a running replica, leaves it unfolded.
CREATE FUNCTION todos_unfold() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.search := NULL;
    RETURN NEW;
END $$;
CREATE TRIGGER todos_unfold BEFORE UPDATE OF title, description, tags ON todos FOR EACH ROW
    WHEN (NEW.search = OLD.search AND (NEW.title <> OLD.title OR NEW.tags <> OLD.tags
        OR NEW.description IS DISTINCT FROM OLD.description)) EXECUTE FUNCTION todos_unfold();

-- TRUNCATE fires no trigger of rows.
CREATE FUNCTION todos_derived_truncated() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM todo_tags;
    DELETE FROM tags;
    DELETE FROM list_counts;
    RETURN NULL;
END $$;
CREATE TRIGGER todos_derived_truncated AFTER TRUNCATE ON todos
    FOR EACH STATEMENT EXECUTE FUNCTION todos_derived_truncated();

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
    RETURN NULL;
END $$;

DROP VIEW keyed_todos;
CREATE VIEW keyed_todos AS
    SELECT idempotency.key, idempotency.fingerprint, idempotency.status, idempotency.answer,
           idempotency.location, idempotency.etag, todos.*
    FROM idempotency JOIN todos ON todos.user_id = idempotency.user_id;
CREATE OR REPLACE FUNCTION keyed_todos_insert() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- A key is free again after a day.
    DELETE FROM idempotency
    WHERE user_id = NEW.user_id AND key = NEW.key AND made_at < NEW.created_at - interval '24 hours';
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
        EXECUTE format('GRANT SELECT, INSERT, DELETE ON trash TO %s', writer);
        EXECUTE format('GRANT UPDATE (deleted_at) ON trash TO %s', writer);
        EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON tags, todo_tags, lists, list_counts TO %s', writer);
        EXECUTE format('GRANT INSERT, UPDATE (value) ON meta TO %s', writer);
        EXECUTE format('GRANT SELECT, INSERT ON deletions, keyed_todos TO %s', writer);
        EXECUTE format('GRANT UPDATE (search, tags, list_id, position, due_date, due_minute, due_zone, due_at,'
            ' undated, due_key, rule, rule_from, series_id, occurrence, reminders, ical) ON todos TO %s', writer);
        EXECUTE format('GRANT INSERT (tag, list_id, reminder_id) ON changes TO %s', writer);
        EXECUTE format('GRANT SELECT ON changes TO %s', writer);
    END LOOP;
END $$;
DROP TABLE trash_before;
