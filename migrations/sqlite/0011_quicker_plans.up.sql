-- Lists by due date that are counted from the index alone: it has all columns of its condition.
DROP INDEX todos_by_due;
CREATE INDEX todos_by_due ON todos (user_id, completed, due_key, created_at, id) WHERE undated = FALSE;
