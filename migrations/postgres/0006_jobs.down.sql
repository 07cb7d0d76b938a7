-- The locks of all tables that change, at once. Statements of running replicas may hold them in another
-- order: the wait is shorter than deadlock_timeout, so that this gives way and no request fails.
SET LOCAL lock_timeout = '500ms';
DO $$
BEGIN
    FOR attempt IN 1..40 LOOP
        BEGIN
            LOCK TABLE todos IN ACCESS EXCLUSIVE MODE;
            RETURN;
        EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
            PERFORM pg_sleep(0.5);
        END;
    END LOOP;
    RAISE EXCEPTION 'other transactions hold locks on todos: end them, and migrate again'
        USING ERRCODE = 'lock_not_available';
END $$;
SET LOCAL lock_timeout = 0;

DROP TRIGGER todos_inserted ON todos;
DROP FUNCTION todos_inserted();
CREATE FUNCTION todos_count_inserted() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    WITH added AS (
        SELECT user_id, count(*) AS n, count(*) FILTER (WHERE completed) AS completed
        FROM inserted GROUP BY user_id),
    locked AS MATERIALIZED (
        SELECT user_id FROM todo_counts WHERE user_id IN (SELECT user_id FROM added)
        ORDER BY user_id FOR UPDATE),
    counted AS (
        UPDATE todo_counts AS counts
        SET pending = counts.pending + added.n - added.completed,
            completed = counts.completed + added.completed, seq = counts.seq + added.n
        FROM added JOIN locked USING (user_id) WHERE counts.user_id = added.user_id
        RETURNING counts.user_id, counts.seq - added.n AS base)
    INSERT INTO changes (user_id, seq, kind, todo_id)
    SELECT user_id, base + row_number() OVER (PARTITION BY user_id ORDER BY id), 1, id
    FROM inserted JOIN counted USING (user_id);
    RETURN NULL;
END $$;
CREATE TRIGGER todos_count_inserted AFTER INSERT ON todos REFERENCING NEW TABLE AS inserted
    FOR EACH STATEMENT EXECUTE FUNCTION todos_count_inserted();

DROP INDEX idempotency_long;
DROP TABLE jobs;
