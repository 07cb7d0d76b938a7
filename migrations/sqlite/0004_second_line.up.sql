-- What an account leaves behind. Foreign keys are off in the sqlite3 shell, and a DELETE there does not
-- cascade: a trigger runs whatever the connection has set.
DELETE FROM sessions WHERE user_id NOT IN (SELECT id FROM users);
DELETE FROM todo_counts WHERE user_id NOT IN (SELECT id FROM users);
DELETE FROM todos WHERE user_id NOT IN (SELECT id FROM users);
CREATE TRIGGER users_cascade AFTER DELETE ON users BEGIN
    DELETE FROM sessions WHERE user_id = OLD.id;
    DELETE FROM todo_counts WHERE user_id = OLD.id;
    DELETE FROM todos WHERE user_id = OLD.id;
END;
CREATE TRIGGER users_keep_id BEFORE UPDATE OF id ON users WHEN NEW.id <> OLD.id
    AND EXISTS (SELECT 1 FROM sessions WHERE user_id = OLD.id UNION ALL SELECT 1 FROM todo_counts WHERE user_id = OLD.id)
BEGIN
    SELECT RAISE(ABORT, 'FOREIGN KEY constraint failed');
END;

-- A user has at most 100 sessions: a new one ends the oldest. The new one itself stays, even if the
-- clock was set back and it seems to be the oldest.
DELETE FROM sessions WHERE id IN (
    SELECT id FROM (SELECT id, row_number() OVER (PARTITION BY user_id ORDER BY created_at DESC, id DESC) AS place
                    FROM sessions) WHERE place > 100);
CREATE TRIGGER sessions_limit AFTER INSERT ON sessions BEGIN
    DELETE FROM sessions WHERE user_id = NEW.user_id AND id IN (
        SELECT id FROM sessions WHERE user_id = NEW.user_id
        ORDER BY id = NEW.id DESC, created_at DESC, id DESC LIMIT -1 OFFSET 100);
END;

-- Triggers in place of CHECKs, which SQLite cannot add to a table. A row that breaks one of the rules
-- already stays, and can still be completed, deleted and corrected. Blank is what has only white space
-- (Unicode, White_Space), as the library trims it.
CREATE TRIGGER users_rules_insert BEFORE INSERT ON users
WHEN NEW.email NOT LIKE '_%@_%' OR trim(NEW.name, char(9, 10, 11, 12, 13, 32, 133, 160, 5760, 8192, 8193, 8194,
    8195, 8196, 8197, 8198, 8199, 8200, 8201, 8202, 8232, 8233, 8239, 8287, 12288)) = '' BEGIN
    SELECT RAISE(ABORT, 'CHECK constraint failed: users_rules');
END;
CREATE TRIGGER users_rules_update BEFORE UPDATE OF email, name ON users
WHEN (NEW.email <> OLD.email AND NEW.email NOT LIKE '_%@_%')
  OR (NEW.name <> OLD.name AND trim(NEW.name, char(9, 10, 11, 12, 13, 32, 133, 160, 5760, 8192, 8193, 8194,
    8195, 8196, 8197, 8198, 8199, 8200, 8201, 8202, 8232, 8233, 8239, 8287, 12288)) = '') BEGIN
    SELECT RAISE(ABORT, 'CHECK constraint failed: users_rules');
END;
CREATE TRIGGER todos_rules_insert BEFORE INSERT ON todos
WHEN trim(NEW.title, char(9, 10, 11, 12, 13, 32, 133, 160, 5760, 8192, 8193, 8194,
    8195, 8196, 8197, 8198, 8199, 8200, 8201, 8202, 8232, 8233, 8239, 8287, 12288)) = '' BEGIN
    SELECT RAISE(ABORT, 'CHECK constraint failed: todos_rules');
END;
CREATE TRIGGER todos_rules_update BEFORE UPDATE OF title ON todos
WHEN NEW.title <> OLD.title AND trim(NEW.title, char(9, 10, 11, 12, 13, 32, 133, 160, 5760, 8192, 8193, 8194,
    8195, 8196, 8197, 8198, 8199, 8200, 8201, 8202, 8232, 8233, 8239, 8287, 12288)) = '' BEGIN
    SELECT RAISE(ABORT, 'CHECK constraint failed: todos_rules');
END;

-- A todo that is given to another user is counted there.
DROP TRIGGER todos_count_update;
CREATE TRIGGER todos_count_update AFTER UPDATE OF completed ON todos
WHEN NEW.completed <> OLD.completed AND NEW.user_id = OLD.user_id BEGIN
    UPDATE todo_counts
    SET pending = pending + OLD.completed - NEW.completed, completed = completed + NEW.completed - OLD.completed
    WHERE user_id = NEW.user_id;
END;
CREATE TRIGGER todos_count_move AFTER UPDATE OF user_id ON todos WHEN NEW.user_id <> OLD.user_id BEGIN
    UPDATE todo_counts SET pending = pending - (1 - OLD.completed), completed = completed - OLD.completed
    WHERE user_id = OLD.user_id;
    UPDATE todo_counts SET pending = pending + (1 - NEW.completed), completed = completed + NEW.completed
    WHERE user_id = NEW.user_id;
END;

-- The networks of an IPv6 client, which are limited too; NULL for IPv4.
ALTER TABLE rate_limits ADD COLUMN prefix56 TEXT;
ALTER TABLE rate_limits ADD COLUMN prefix48 TEXT;
CREATE INDEX rate_limits_by_prefix ON rate_limits (prefix48, action, taken_at) WHERE prefix48 IS NOT NULL;

-- Which kinds of password hashes there are beside today's, and of what cost: seven characters tell
-- bcrypt's cost.
CREATE INDEX users_by_older_hash ON users (substr(password_hash, 1, 7))
WHERE substr(password_hash, 1, 31) <> '$argon2id$v=19$m=19456,t=2,p=1$';
