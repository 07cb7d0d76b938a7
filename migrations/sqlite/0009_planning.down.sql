DROP VIEW keyed_todos;
DROP VIEW deletions;
DROP TRIGGER todos_tagged_insert;
DROP TRIGGER todos_tagged_delete;
DROP TRIGGER todos_tagged_update;
DROP TRIGGER todos_listed_insert;
DROP TRIGGER todos_listed_delete;
DROP TRIGGER todos_listed_update;
DROP TRIGGER todos_unfold;
DROP TRIGGER todos_updated;
DROP TRIGGER users_cascade;
DROP TABLE list_counts;
DROP TABLE lists;
DROP TABLE todo_tags;
DROP TABLE tags;
DROP INDEX todos_by_due;
DROP INDEX todos_by_list;
DROP INDEX todos_by_position;
DROP INDEX todos_by_series;
DROP INDEX todos_unfolded;
ALTER TABLE todos DROP COLUMN reminders;
ALTER TABLE todos DROP COLUMN ical;
ALTER TABLE trash DROP COLUMN reminders;
ALTER TABLE trash DROP COLUMN ical;
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
CREATE TRIGGER users_cascade AFTER DELETE ON users BEGIN
    DELETE FROM oauth_codes WHERE user_id = OLD.id;
    DELETE FROM identities WHERE user_id = OLD.id;
    DELETE FROM sessions WHERE user_id = OLD.id;
    DELETE FROM todos WHERE user_id = OLD.id;
    DELETE FROM todo_counts WHERE user_id = OLD.id;
    DELETE FROM changes WHERE user_id = OLD.id;
    DELETE FROM idempotency WHERE user_id = OLD.id;
    DELETE FROM trash WHERE user_id = OLD.id;
    DELETE FROM mails WHERE user_id = OLD.id;
END;
CREATE VIEW deletions AS SELECT id, user_id, updated_at AS guard, deleted_at FROM trash;
CREATE TRIGGER deletions_insert INSTEAD OF INSERT ON deletions BEGIN
    INSERT INTO trash SELECT todos.*, NEW.deleted_at FROM todos
    WHERE id = NEW.id AND user_id = NEW.user_id AND (NEW.guard IS NULL OR updated_at = NEW.guard);
    DELETE FROM todos
    WHERE id = NEW.id AND user_id = NEW.user_id AND (NEW.guard IS NULL OR updated_at = NEW.guard);
END;
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
