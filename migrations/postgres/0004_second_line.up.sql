-- What an account leaves behind. Foreign keys do not cascade under session_replication_role = replica, and
-- this trigger does.
CREATE FUNCTION users_cascade() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM sessions WHERE user_id = OLD.id;
    DELETE FROM todo_counts WHERE user_id = OLD.id;
    DELETE FROM todos WHERE user_id = OLD.id;
    RETURN NULL;
END $$;
CREATE TRIGGER users_cascade AFTER DELETE ON users FOR EACH ROW EXECUTE FUNCTION users_cascade();
ALTER TABLE users ENABLE ALWAYS TRIGGER users_cascade;

-- A user has at most 100 sessions: a new one ends the oldest. The new one itself stays, even if the
-- clock was set back and it seems to be the oldest. Logins of one user take turns at the user's row, so
-- that none overlooks another's session.
DELETE FROM sessions WHERE id IN (
    SELECT id FROM (SELECT id, row_number() OVER (PARTITION BY user_id ORDER BY created_at DESC, id DESC) AS place
                    FROM sessions) AS placed WHERE place > 100);
CREATE FUNCTION sessions_limit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM 1 FROM users WHERE id = NEW.user_id FOR NO KEY UPDATE;
    DELETE FROM sessions WHERE user_id = NEW.user_id AND id IN (
        SELECT id FROM sessions WHERE user_id = NEW.user_id
        ORDER BY id = NEW.id DESC, created_at DESC, id DESC OFFSET 100);
    RETURN NULL;
END $$;
CREATE TRIGGER sessions_limit AFTER INSERT ON sessions FOR EACH ROW EXECUTE FUNCTION sessions_limit();

-- Triggers in place of CHECKs, which would be asked at each update of a row, of other columns too. So a
-- row that breaks one of the rules already stays, and can still be completed, deleted and corrected.
-- AFTER, since a BEFORE trigger locks each row that is updated. Blank is what has only white space
-- (Unicode, White_Space), as the library trims it.
CREATE FUNCTION refuse_row() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'row of relation "%" violates rule "%"', TG_TABLE_NAME, TG_NAME
        USING ERRCODE = 'check_violation', SCHEMA = TG_TABLE_SCHEMA, TABLE = TG_TABLE_NAME, CONSTRAINT = TG_NAME;
END $$;
CREATE TRIGGER users_rules_insert AFTER INSERT ON users FOR EACH ROW
    WHEN (NEW.email NOT LIKE '_%@_%' OR btrim(NEW.name,
        E'\t\n\x0b\f\r \u0085\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000') = '')
    EXECUTE FUNCTION refuse_row();
CREATE TRIGGER users_rules_update AFTER UPDATE OF email, name ON users FOR EACH ROW
    WHEN ((NEW.email <> OLD.email AND NEW.email NOT LIKE '_%@_%') OR (NEW.name <> OLD.name AND btrim(NEW.name,
        E'\t\n\x0b\f\r \u0085\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000') = ''))
    EXECUTE FUNCTION refuse_row();
CREATE TRIGGER todos_rules_insert AFTER INSERT ON todos FOR EACH ROW
    WHEN (btrim(NEW.title,
        E'\t\n\x0b\f\r \u0085\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000') = '')
    EXECUTE FUNCTION refuse_row();
CREATE TRIGGER todos_rules_update AFTER UPDATE OF title ON todos FOR EACH ROW
    WHEN (NEW.title <> OLD.title AND btrim(NEW.title,
        E'\t\n\x0b\f\r \u0085\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000') = '')
    EXECUTE FUNCTION refuse_row();

-- TRUNCATE fires no trigger of rows. It locks the table, so nobody counts meanwhile.
CREATE FUNCTION todos_count_truncated() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE todo_counts SET pending = 0, completed = 0 WHERE pending <> 0 OR completed <> 0;
    RETURN NULL;
END $$;
CREATE TRIGGER todos_count_truncated AFTER TRUNCATE ON todos
    FOR EACH STATEMENT EXECUTE FUNCTION todos_count_truncated();
CREATE FUNCTION todo_counts_recount() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO todo_counts (user_id, pending, completed)
    SELECT users.id, count(*) FILTER (WHERE NOT todos.completed), count(*) FILTER (WHERE todos.completed)
    FROM users LEFT JOIN todos ON todos.user_id = users.id GROUP BY users.id;
    RETURN NULL;
END $$;
CREATE TRIGGER todo_counts_recount AFTER TRUNCATE ON todo_counts
    FOR EACH STATEMENT EXECUTE FUNCTION todo_counts_recount();

-- A todo that is given to another user is counted there.
DROP TRIGGER todos_count_updated ON todos;
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

-- The networks of an IPv6 client, which are limited too; NULL for IPv4.
ALTER TABLE rate_limits ADD COLUMN prefix56 text COLLATE "C", ADD COLUMN prefix48 text COLLATE "C";
CREATE INDEX rate_limits_by_prefix ON rate_limits (prefix48, action, taken_at) WHERE prefix48 IS NOT NULL;

-- Which kinds of password hashes there are beside today's, and of what cost: seven characters tell
-- bcrypt's cost.
CREATE INDEX users_by_older_hash ON users (substr(password_hash, 1, 7))
WHERE substr(password_hash, 1, 31) <> '$argon2id$v=19$m=19456,t=2,p=1$';
