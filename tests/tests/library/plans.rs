//! Plans of statements, as the databases explain them.

use serde_json::Value;
use sqlx::{AssertSqlSafe, Executor, PgConnection, Row, SqliteConnection};
use todo_core::testing::ListStatement;

/// A step of SQLite's plan, and the steps within it.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) text: String,
    pub(crate) steps: Vec<Step>,
}

/// SQLite's plan of a statement.
pub(crate) async fn sqlite(conn: &mut SqliteConnection, sql: &str) -> Vec<Step> {
    let explain = AssertSqlSafe(format!("EXPLAIN QUERY PLAN {sql}"));
    let rows = sqlx::query(explain).fetch_all(conn).await.expect("a plan");
    let rows: Vec<(i64, i64, String)> =
        rows.iter().map(|row| (row.get("id"), row.get("parent"), row.get("detail"))).collect();
    steps_of(0, &rows)
}

fn steps_of(wanted: i64, rows: &[(i64, i64, String)]) -> Vec<Step> {
    let within = rows.iter().filter(|(_, parent, _)| *parent == wanted);
    within.map(|(id, _, text)| Step { text: text.clone(), steps: steps_of(*id, rows) }).collect()
}

/// PostgreSQL's plans of a statement: for these values, and for any values. A prepared statement
/// has one of the two. If it is executed, they have the numbers of rows.
pub(crate) async fn postgres(
    conn: &mut PgConnection,
    statement: &ListStatement,
    executes: bool,
) -> Vec<Value> {
    let ListStatement { sql, binds, .. } = statement;
    let (types, values): (Vec<&str>, Vec<&str>) =
        binds.iter().map(|(kind, value)| (*kind, value.as_str())).unzip();
    let prepare = format!("PREPARE list ({}) AS {sql}", types.join(", "));
    conn.execute(AssertSqlSafe(prepare)).await.expect("a prepared statement");
    let mut plans = Vec::new();
    let options = if executes { "ANALYZE, TIMING OFF, " } else { "" };
    for mode in ["force_custom_plan", "force_generic_plan"] {
        let explain = format!(
            "SET plan_cache_mode = {mode};
             EXPLAIN ({options}FORMAT JSON) EXECUTE list ({})",
            values.join(", ")
        );
        let row = sqlx::raw_sql(AssertSqlSafe(explain)).fetch_one(&mut *conn).await;
        let row = row.expect("a plan");
        let json = row.try_get_raw(0).expect("a column").as_str().expect("text").to_owned();
        let mut plan: Value = serde_json::from_str(&json).expect("JSON");
        plans.push(plan[0]["Plan"].take());
    }
    conn.execute("DEALLOCATE list").await.expect("the end of the statement");
    plans
}
