DROP INDEX users_by_older_hash;
DROP INDEX rate_limits_by_prefix;
ALTER TABLE rate_limits DROP COLUMN prefix48, DROP COLUMN prefix56;
DROP TRIGGER todos_count_moved ON todos;
DROP FUNCTION todos_count_moved();
DROP TRIGGER todos_count_updated ON todos;
CREATE TRIGGER todos_count_updated AFTER UPDATE OF completed ON todos
    FOR EACH ROW WHEN (NEW.completed IS DISTINCT FROM OLD.completed)
    EXECUTE FUNCTION todos_count_updated();
DROP TRIGGER todo_counts_recount ON todo_counts;
DROP FUNCTION todo_counts_recount();
DROP TRIGGER todos_count_truncated ON todos;
DROP FUNCTION todos_count_truncated();
DROP TRIGGER todos_rules_update ON todos;
DROP TRIGGER todos_rules_insert ON todos;
DROP TRIGGER users_rules_update ON users;
DROP TRIGGER users_rules_insert ON users;
DROP FUNCTION refuse_row();
DROP TRIGGER sessions_limit ON sessions;
DROP FUNCTION sessions_limit();
DROP TRIGGER users_cascade ON users;
DROP FUNCTION users_cascade();
