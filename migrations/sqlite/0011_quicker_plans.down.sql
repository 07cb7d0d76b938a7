DROP INDEX todos_by_due;
CREATE INDEX todos_by_due ON todos (user_id, completed, due_key, created_at, id) WHERE due_date IS NOT NULL;
