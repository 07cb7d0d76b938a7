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

DROP VIEW keyed_todos;
DROP FUNCTION keyed_todos_insert();
DROP VIEW deletions;
DROP FUNCTION deletions_insert();
DROP TRIGGER todos_restored ON todos;
DROP FUNCTION todos_restored();
DROP TRIGGER changes_restart ON todos;
DROP TRIGGER todos_updated ON todos;
DROP FUNCTION todos_updated();
DROP TRIGGER todos_moved ON todos;
DROP FUNCTION todos_moved();
DROP TABLE trash;
DROP TABLE idempotency;
DROP TABLE changes;
DROP FUNCTION changes_prune();
DROP FUNCTION changes_restart();
DROP TABLE meta;
ALTER TABLE todos
    DROP COLUMN search, DROP COLUMN tags, DROP COLUMN list_id, DROP COLUMN parent_id,
    DROP COLUMN position, DROP COLUMN due_date, DROP COLUMN due_minute, DROP COLUMN due_zone,
    DROP COLUMN due_at, DROP COLUMN undated, DROP COLUMN due_key, DROP COLUMN rule,
    DROP COLUMN rule_from, DROP COLUMN series_id, DROP COLUMN occurrence;
ALTER TABLE todo_counts DROP COLUMN seq;

CREATE OR REPLACE FUNCTION users_cascade() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM sessions WHERE user_id = OLD.id;
    DELETE FROM todo_counts WHERE user_id = OLD.id;
    DELETE FROM todos WHERE user_id = OLD.id;
    RETURN NULL;
END $$;
CREATE OR REPLACE FUNCTION todo_counts_recount() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO todo_counts (user_id, pending, completed)
    SELECT users.id, count(*) FILTER (WHERE NOT todos.completed), count(*) FILTER (WHERE todos.completed)
    FROM users LEFT JOIN todos ON todos.user_id = users.id GROUP BY users.id;
    RETURN NULL;
END $$;
CREATE OR REPLACE FUNCTION todos_count_inserted() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE todo_counts AS counts
    SET pending = counts.pending + added.pending, completed = counts.completed + added.completed
    FROM (SELECT user_id, count(*) FILTER (WHERE NOT completed) AS pending,
                 count(*) FILTER (WHERE completed) AS completed
          FROM inserted GROUP BY user_id) AS added
    WHERE counts.user_id = added.user_id;
    RETURN NULL;
END $$;
CREATE OR REPLACE FUNCTION todos_count_deleted() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE todo_counts AS counts
    SET pending = counts.pending - gone.pending, completed = counts.completed - gone.completed
    FROM (SELECT user_id, count(*) FILTER (WHERE NOT completed) AS pending,
                 count(*) FILTER (WHERE completed) AS completed
          FROM deleted GROUP BY user_id) AS gone
    WHERE counts.user_id = gone.user_id;
    RETURN NULL;
END $$;
CREATE FUNCTION todos_count_updated() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE todo_counts
    SET pending = pending + OLD.completed::int - NEW.completed::int,
        completed = todo_counts.completed + NEW.completed::int - OLD.completed::int
    WHERE user_id = NEW.user_id;
    RETURN NULL;
END $$;
CREATE TRIGGER todos_count_updated AFTER UPDATE OF completed ON todos FOR EACH ROW
    WHEN (NEW.completed IS DISTINCT FROM OLD.completed AND NEW.user_id = OLD.user_id)
    EXECUTE FUNCTION todos_count_updated();
CREATE FUNCTION todos_count_moved() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE todo_counts
    SET pending = pending - 1 + OLD.completed::int, completed = todo_counts.completed - OLD.completed::int
    WHERE user_id = OLD.user_id;
    UPDATE todo_counts
    SET pending = pending + 1 - NEW.completed::int, completed = todo_counts.completed + NEW.completed::int
    WHERE user_id = NEW.user_id;
    RETURN NULL;
END $$;
CREATE TRIGGER todos_count_moved AFTER UPDATE OF user_id ON todos FOR EACH ROW
    WHEN (NEW.user_id <> OLD.user_id) EXECUTE FUNCTION todos_count_moved();
