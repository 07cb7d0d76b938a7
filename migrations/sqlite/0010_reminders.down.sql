DROP TRIGGER todos_with_reminders_inserted;
DROP TRIGGER todos_with_reminders_updated;
DROP TRIGGER todos_with_reminders_deleted;
DROP TRIGGER users_time_zone_changed;
DROP TRIGGER users_cascade;
DROP VIEW reminder_firings;
DROP TABLE webhook_deliveries;
DROP TABLE webhooks;
DROP TABLE reminders;
-- The version before does not know their kind.
DELETE FROM mails WHERE kind = 'reminder';
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
    DELETE FROM todo_tags WHERE user_id = OLD.id;
    DELETE FROM tags WHERE user_id = OLD.id;
    DELETE FROM lists WHERE user_id = OLD.id;
    DELETE FROM list_counts WHERE user_id = OLD.id;
END;
