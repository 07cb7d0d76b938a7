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

DROP VIEW keyed_todos;
DROP VIEW deletions;
DROP TRIGGER todos_derived_truncated ON todos;
DROP FUNCTION todos_derived_truncated();
DROP TRIGGER todos_unfold ON todos;
DROP FUNCTION todos_unfold();
DROP TABLE lists;
DROP TABLE list_counts;
DROP TABLE tags;
DROP TABLE todo_tags;
DROP FUNCTION lists_changed();
DROP FUNCTION lists_deleted();
DROP FUNCTION tags_changed();
CREATE OR REPLACE FUNCTION todos_inserted() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    WITH counted AS (
        UPDATE todo_counts AS counts
        SET pending = counts.pending + 1 - NEW.completed::int,
            completed = counts.completed + NEW.completed::int, seq = counts.seq + 1
        WHERE user_id = NEW.user_id RETURNING user_id, seq)
    INSERT INTO changes (user_id, seq, kind, todo_id) SELECT user_id, seq, 1, NEW.id FROM counted;
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
    RETURN NULL;
END $$;
DROP TRIGGER todos_updated ON todos;
CREATE TRIGGER todos_updated AFTER UPDATE OF title, description, priority, completed, created_at, updated_at,
    completed_at, tags, list_id, parent_id, position, due_date, due_minute, due_zone, due_at, undated, due_key,
    rule, rule_from, series_id, occurrence ON todos FOR EACH ROW
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
    RETURN NULL;
END $$;
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
    RETURN NULL;
END $$;
DROP INDEX todos_by_due;
DROP INDEX todos_by_list;
DROP INDEX todos_by_position;
DROP INDEX todos_by_series;
DROP INDEX todos_unfolded;
ALTER TABLE todos DROP COLUMN reminders, DROP COLUMN ical;
-- The order of its columns is that of `todos` without the two.
ALTER TABLE trash DROP COLUMN reminders, DROP COLUMN ical;
CREATE VIEW deletions AS SELECT id, user_id, updated_at AS guard, deleted_at FROM trash;
CREATE TRIGGER deletions_insert INSTEAD OF INSERT ON deletions
    FOR EACH ROW EXECUTE FUNCTION deletions_insert();
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

DO $$
DECLARE
    writer text;
BEGIN
    FOR writer IN
        SELECT DISTINCT CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END
        FROM pg_class, aclexplode(relacl)
        WHERE pg_class.oid = CAST('todos' AS regclass) AND privilege_type = 'DELETE' AND grantee <> relowner
    LOOP
        EXECUTE format('GRANT SELECT, INSERT ON deletions, keyed_todos TO %s', writer);
    END LOOP;
END $$;
