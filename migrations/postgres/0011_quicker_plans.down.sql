-- The lock of the table, so that its index is replaced at once. Statements of running replicas may hold
-- it: the wait is shorter than deadlock_timeout, so that this gives way and no request fails.
SET LOCAL lock_timeout = '500ms';
DO $$
BEGIN
    FOR attempt IN 1..40 LOOP
        BEGIN
            LOCK TABLE todos IN ACCESS EXCLUSIVE MODE;
            RETURN;
        EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
            PERFORM pg_sleep(0.5);
        END;
    END LOOP;
    RAISE EXCEPTION 'other transactions hold locks on todos: end them, and migrate again'
        USING ERRCODE = 'lock_not_available';
END $$;
SET LOCAL lock_timeout = 0;

DROP INDEX todos_by_due;
CREATE INDEX todos_by_due ON todos (user_id, completed, due_key, created_at, id) WHERE due_date IS NOT NULL;
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
