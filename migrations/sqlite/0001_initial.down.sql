DROP TABLE rate_limits;
DROP TABLE todo_counts;
DROP TABLE todos;
DROP TABLE sessions;
DROP TABLE users;
