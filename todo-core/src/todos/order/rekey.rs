//! New keys for all todos with a position, in the same order, when a key between two of them would
//! be too long.
//!
//! First all get keys after the present last one, beginning with the last todo: the order is the
//! same after each piece. If the keys at the end were long ones, these are too. Then all get keys
//! before the former last one, beginning with the first todo.

use uuid::Uuid;

use super::keys::{PIECE, assign};
use crate::{
    authz::{Caller, acting_as, authorized},
    core::Core,
    db::{
        DbError, Dialect, Row, Statement,
        batch::{Next, Script},
    },
    error::{Error, Result},
    todos::{
        bulk::{Text, both, for_update},
        order_key::{MAX_CHARS, OrderKey},
    },
};

/// Pieces beyond the expected number, for todos that get a position meanwhile.
const MORE_PIECES: i64 = 2;

/// Assigns new keys to all of the caller's todos with a position.
pub(super) async fn rekey(core: &Core, caller: Caller) -> Result<()> {
    let Some((count, last)) = measure(core, caller).await? else { return Ok(()) };
    let pieces = usize::try_from(count / PIECE + MORE_PIECES).unwrap_or(usize::MAX);
    let after = |end: &OrderKey| Some(OrderKey::after(end));
    let ends: Vec<OrderKey> = std::iter::successors(after(&last), after).take(pieces + 1).collect();
    let is_all = run(core, caller, Direction::Descending, &last, &ends).await?;
    let is_long = |end: &OrderKey| end.to_stored().len() > MAX_CHARS / 2;
    if is_all && ends.last().is_some_and(is_long) {
        let mut ends = OrderKey::fill(&OrderKey::before(&last), &last, pieces + 1);
        ends.reverse();
        run(core, caller, Direction::Ascending, &last, &ends).await?;
    }
    Ok(())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    /// The todos with the greatest keys up to a bound get keys after it.
    Descending,
    /// The todos with the least keys after a bound get keys before it.
    Ascending,
}

/// Assigns keys piece by piece: those of each are between the last two of `ends` that are left.
/// Returns whether all todos got some.
async fn run(
    core: &Core,
    caller: Caller,
    direction: Direction,
    bound: &OrderKey,
    ends: &[OrderKey],
) -> Result<bool> {
    let user = caller.user_id();
    for interval in ends.windows(2).rev() {
        let [low, high] = interval else { continue };
        let [low, high] = if low < high { [low, high] } else { [high, low] };
        let db = core.db();
        let piece = Piece {
            caller,
            dialect: db.dialect(),
            direction,
            bound: bound.to_stored(),
            interval: [low.clone(), high.clone()],
            step: Step::Begin,
            is_authorized: false,
            found: 0,
            todos: Vec::new(),
        };
        let found = core
            .write(user, async move { Ok(db.execute_script(Some(user.as_uuid()), piece).await?) })
            .await?;
        match found {
            None => return Err(Error::Unauthenticated),
            Some(found) if found < PIECE => return Ok(true),
            Some(_) => {}
        }
    }
    Ok(false)
}

/// The number of the caller's todos with a position, and the last key; `None` if there are none.
async fn measure(core: &Core, caller: Caller) -> Result<Option<(i64, OrderKey)>> {
    const SQL: &str = concat!(
        "SELECT ",
        authorized!(),
        ", count(*), max(position) FROM todos \
         WHERE user_id = $1 AND completed IN (FALSE, TRUE) AND position IS NOT NULL"
    );
    let db = core.db();
    let select = acting_as(caller, SQL);
    let row = core.read(caller.user_id(), async move { Ok(db.fetch_one(select).await?) }).await?;
    let (is_authorized, count, last): (bool, i64, Option<String>) = row;
    if !is_authorized {
        return Err(Error::Unauthenticated);
    }
    let Some(last) = last else { return Ok(None) };
    let last = OrderKey::from_stored(&last).ok_or(DbError::Value("position"))?;
    Ok(Some((count, last)))
}

/// Finds the next todos, and assigns keys in an interval to them.
#[derive(Clone)]
struct Piece {
    caller: Caller,
    dialect: Dialect,
    direction: Direction,
    bound: String,
    interval: [OrderKey; 2],
    step: Step,
    is_authorized: bool,
    found: i64,
    /// Those that still have the key, in their order.
    todos: Vec<(Uuid, String)>,
}

#[derive(Clone, Copy)]
enum Step {
    Begin,
    Find,
    Assign,
}

impl Piece {
    fn find(&self) -> Statement {
        macro_rules! part {
            ($completed:literal, $range:literal, $end:literal) => {
                concat!(
                    "SELECT * FROM (SELECT id, position, created_at FROM todos \
                     WHERE user_id = $1 AND completed = ",
                    $completed,
                    " AND position IS NOT NULL AND position ",
                    $range,
                    " $4 ",
                    $end,
                    ") AS part"
                )
            };
        }
        macro_rules! find {
            ($dialect:ident, $range:literal, $end:literal) => {
                concat!(
                    "WITH picked AS MATERIALIZED (SELECT id, position, created_at FROM (",
                    part!("FALSE", $range, $end),
                    " UNION ALL ",
                    part!("TRUE", $range, $end),
                    ") AS placed ",
                    $end,
                    "), locked AS MATERIALIZED (SELECT todos.id FROM todos \
                     JOIN picked ON picked.id = todos.id \
                     WHERE todos.position = picked.position ORDER BY todos.id",
                    for_update!($dialect, "todos"),
                    ") SELECT ",
                    authorized!(),
                    ", picked.id, picked.position, locked.id IS NOT NULL \
                     FROM (SELECT 1 AS one) AS one LEFT JOIN picked ON TRUE \
                     LEFT JOIN locked ON locked.id = picked.id \
                     ORDER BY picked.position, picked.created_at, picked.id"
                )
            };
        }
        macro_rules! descending {
            ($dialect:ident) => {
                find!($dialect, "<=", "ORDER BY position DESC, created_at DESC, id DESC LIMIT $5")
            };
        }
        macro_rules! ascending {
            ($dialect:ident) => {
                find!($dialect, ">", "ORDER BY position, created_at, id LIMIT $5")
            };
        }
        const DESCENDING: Text = both!(descending);
        const ASCENDING: Text = both!(ascending);
        let sql = match self.direction {
            Direction::Descending => DESCENDING,
            Direction::Ascending => ASCENDING,
        };
        acting_as(self.caller, sql.of(self.dialect)).bind(self.bound.as_str()).bind(PIECE)
    }

    fn assign(&mut self) -> Statement {
        let [low, high] = &self.interval;
        let keys = OrderKey::fill(low, high, self.todos.len());
        let todos = std::mem::take(&mut self.todos).into_iter().zip(keys);
        assign(self.caller, self.dialect, todos.map(|((id, old), new)| (id, Some(old), new)))
    }
}

impl Script for Piece {
    /// The number of todos that were found; `None` without a session.
    type Output = Option<i64>;

    fn push(&mut self, row: &Row<'_>) -> Result<(), DbError> {
        self.is_authorized = row.get(0)?;
        if let Some(id) = row.get::<Option<Uuid>>(1)? {
            self.found += 1;
            if row.get(3)? {
                self.todos.push((id, row.get(2)?));
            }
        }
        Ok(())
    }

    fn next(&mut self, _rows: u64) -> Result<Next<Self::Output>, DbError> {
        let done = self.is_authorized.then_some(self.found);
        Ok(match self.step {
            Step::Begin => {
                self.step = Step::Find;
                Next::Run(self.find())
            }
            Step::Find if !self.is_authorized || self.todos.is_empty() => Next::RollBack(done),
            Step::Find => {
                self.step = Step::Assign;
                Next::Run(self.assign())
            }
            Step::Assign => Next::Commit(done),
        })
    }
}
