-- A new account and its first session, by one statement: there is never the one without the other.
CREATE VIEW signups AS
    SELECT users.id, users.email, users.name, users.password_hash, users.created_at,
           sessions.id AS session_id, sessions.expires_at
    FROM users JOIN sessions ON sessions.user_id = users.id;
CREATE TRIGGER signups_insert INSTEAD OF INSERT ON signups BEGIN
    INSERT INTO users (id, email, name, password_hash, created_at)
    VALUES (NEW.id, NEW.email, NEW.name, NEW.password_hash, NEW.created_at);
    INSERT INTO sessions (id, user_id, created_at, expires_at)
    VALUES (NEW.session_id, NEW.id, NEW.created_at, NEW.expires_at);
END;
