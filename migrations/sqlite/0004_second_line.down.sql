DROP INDEX users_by_older_hash;
DROP INDEX rate_limits_by_prefix;
ALTER TABLE rate_limits DROP COLUMN prefix48;
ALTER TABLE rate_limits DROP COLUMN prefix56;
DROP TRIGGER todos_count_move;
DROP TRIGGER todos_count_update;
CREATE TRIGGER todos_count_update AFTER UPDATE OF completed ON todos WHEN NEW.completed <> OLD.completed BEGIN
    UPDATE todo_counts
    SET pending = pending + OLD.completed - NEW.completed, completed = completed + NEW.completed - OLD.completed
    WHERE user_id = NEW.user_id;
END;
DROP TRIGGER todos_rules_update;
DROP TRIGGER todos_rules_insert;
DROP TRIGGER users_rules_update;
DROP TRIGGER users_rules_insert;
DROP TRIGGER sessions_limit;
DROP TRIGGER users_keep_id;
DROP TRIGGER users_cascade;
