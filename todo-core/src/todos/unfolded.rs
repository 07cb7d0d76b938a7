//! Folds the texts of todos for searches, where a write did not: of a version without searches, or
//! by hand.

use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::{
    Description, Tags, Title,
    bulk::{Text, both, for_update},
    fold,
    list_query::MAX_UNFOLDED,
};
use crate::{
    authz::{Caller, acting_as, authorized},
    core::Core,
    db::{DbError, Dialect, FromRows, Row, RowsAffected, Statement},
    error::{BoxError, Error, Result},
};

/// Maximum number of todos of a statement.
const CHUNK_ROWS: i64 = 500;
/// Maximum size of their texts in bytes, unless it is a single todo.
const CHUNK_BYTES: usize = 512 << 10;
/// Maximum number of chunks of one run of the job, which then goes on soon.
const MAX_CHUNKS: usize = 40;

/// Folds the todos of a caller, of which a search has found this number, if they are few.
pub(super) async fn fold_few(core: &Core, caller: Caller, found: i64) -> Result<()> {
    const SQL: &str = concat!(
        "SELECT id, title, description, tags FROM todos \
         WHERE user_id = $1 AND search IS NULL AND ",
        authorized!(),
        " ORDER BY id LIMIT $4"
    );
    if found > MAX_UNFOLDED {
        let message = "the user's todos are being prepared for searches";
        return Err(Error::Unavailable(BoxError::new(message)));
    }
    let db = core.db();
    core.write(caller.user_id(), async move {
        let unfolded: Unfolded = db.fetch(acting_as(caller, SQL).bind(CHUNK_ROWS)).await?;
        if let Some(folded) = unfolded.fold(db.dialect()).await {
            let RowsAffected(_) = db.execute(folded.of(caller.user_id())).await?;
        }
        Ok(())
    })
    .await
}

/// Folds the todos of all users; false if there are more than were folded.
///
/// # Errors
/// [`Error::Busy`], [`Error::Unavailable`], [`Error::Internal`].
pub(crate) async fn fold_all(core: &Core) -> Result<bool> {
    const SQL: &str = "SELECT id, title, description, tags FROM todos \
        WHERE search IS NULL ORDER BY user_id, id LIMIT $1";
    for _ in 0..MAX_CHUNKS {
        let db = core.db();
        let rest = core.anonymous(async move {
            let unfolded: Unfolded = db.fetch(Statement::new(SQL).bind(CHUNK_ROWS)).await?;
            let Some(folded) = unfolded.fold(db.dialect()).await else { return Ok(0) };
            let RowsAffected(rows) = db.execute(folded).await?;
            Ok(rows)
        });
        if rest.await? == 0 {
            return Ok(true);
        }
        tokio::task::yield_now().await;
    }
    Ok(false)
}

/// Todos whose texts are not folded.
#[derive(Default)]
struct Unfolded {
    rows: Vec<UnfoldedTodo>,
    bytes: usize,
    is_full: bool,
}

struct UnfoldedTodo {
    id: Uuid,
    title: String,
    description: Option<String>,
    tags: String,
}

impl FromRows for Unfolded {
    fn push(&mut self, row: &Row<'_>) -> std::result::Result<(), DbError> {
        if self.is_full {
            return Ok(());
        }
        let todo = UnfoldedTodo {
            id: row.get(0)?,
            title: row.get(1)?,
            description: row.get(2)?,
            tags: row.get(3)?,
        };
        self.bytes +=
            todo.title.len() + todo.description.as_ref().map_or(0, String::len) + todo.tags.len();
        self.is_full = self.bytes > CHUNK_BYTES && !self.rows.is_empty();
        if !self.is_full {
            self.rows.push(todo);
        }
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.is_full
    }
}

impl Unfolded {
    /// The statement that stores their folded texts, of those whose texts are still these. `None`
    /// if there are none.
    async fn fold(self, dialect: Dialect) -> Option<Statement> {
        let Self { rows, .. } = self;
        if rows.is_empty() {
            return None;
        }
        // Some milliseconds of work.
        let items = tokio::task::spawn_blocking(move || {
            rows.into_iter().map(UnfoldedTodo::fold).collect::<Map<String, Value>>()
        });
        let items = items.await.ok()?;
        Some(Statement::new(STORE.of(dialect)).bind(Value::Object(items).to_string()))
    }
}

impl UnfoldedTodo {
    fn fold(self) -> (String, Value) {
        let Self { id, title, description, tags } = self;
        let search = fold::todo(
            &Title::from_stored(title.clone()),
            &Tags::from_stored(&tags).unwrap_or_default(),
            description.clone().map(Description::from_stored).as_ref(),
        );
        let item = json!({
            "title": title, "description": description, "tags": tags, "search": search,
        });
        (id.simple().to_string(), item)
    }
}

macro_rules! store {
    (Sqlite) => {
        concat!(
            "UPDATE todos SET search = item.value ->> 'search' FROM json_each($1) AS item \
             WHERE todos.id = unhex(item.key) AND ",
            store!(is_same)
        )
    };
    // Locked in the order of a bulk.
    (Postgres) => {
        concat!(
            "WITH item AS MATERIALIZED (SELECT CAST(key AS uuid) AS item_id, value \
             FROM json_each(CAST($1 AS json))), \
             locked AS MATERIALIZED (SELECT id FROM todos \
             WHERE id IN (SELECT item_id FROM item) ORDER BY id",
            for_update!(Postgres, "todos"),
            ") UPDATE todos SET search = item.value ->> 'search' \
             FROM item JOIN locked ON locked.id = item_id WHERE todos.id = item_id AND ",
            store!(is_same)
        )
    };
    (is_same) => {
        "search IS NULL AND todos.title = item.value ->> 'title' \
         AND todos.description IS NOT DISTINCT FROM item.value ->> 'description' \
         AND todos.tags = item.value ->> 'tags'"
    };
}
const STORE: Text = both!(store);
