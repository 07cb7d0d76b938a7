//! The SQL of the quota of reminders that have not fired.

/// SQL condition that the caller would have no more than `$limit` reminders that have not fired,
/// with those of a new todo: a stored text. 0 is no limit.
macro_rules! is_below_reminder_quota {
    ($dialect:ident, $reminders:literal, $limit:literal) => {
        concat!(
            "(",
            $limit,
            " = 0 OR ",
            $reminders,
            " = '[]' OR ",
            open_reminders!(""),
            " + ",
            number_of!($dialect, $reminders),
            " <= ",
            $limit,
            ")"
        )
    };
}
pub(super) use is_below_reminder_quota;

/// As [`is_below_reminder_quota!`], for a patch: `$reminders` is NULL if it has none, and `$dues`
/// says whether it has a due date. A patch that adds no reminder is always allowed.
macro_rules! keeps_reminder_quota {
    ($dialect:ident, $reminders:literal, $dues:literal, $limit:literal) => {
        concat!(
            "(",
            $limit,
            " = 0 OR completed OR (",
            $reminders,
            " IS NULL AND NOT ",
            $dues,
            ") OR ",
            number_of!($dialect, concat!("coalesce(", $reminders, ", reminders)")),
            " <= (SELECT count(*) FROM reminders AS own WHERE own.todo_id = todos.id \
             AND own.fired_at IS NULL) OR ",
            open_reminders!(" AND open.todo_id <> todos.id"),
            " + ",
            number_of!($dialect, concat!("coalesce(", $reminders, ", reminders)")),
            " <= ",
            $limit,
            ")"
        )
    };
}
pub(super) use keeps_reminder_quota;

/// SQL expression for the number of the caller's reminders that have not fired.
macro_rules! open_reminders {
    ($condition:expr) => {
        concat!(
            "(SELECT count(*) FROM reminders AS open WHERE open.user_id = $1 \
             AND open.fired_at IS NULL",
            $condition,
            ")"
        )
    };
}
pub(super) use open_reminders;

/// SQL condition that the row `$todo`, if it is open, adds no more reminders than `$limit` allows
/// the caller: those whose time is after `$now`. 0 is no limit.
macro_rules! has_room_for_reminders {
    ($dialect:ident, $todo:literal, $now:literal, $limit:literal) => {
        concat!(
            "(",
            $limit,
            " = 0 OR ",
            $todo,
            ".reminders = '[]' OR ",
            coming_reminders!($dialect, $todo, $now),
            " = 0 OR ",
            open_reminders!(""),
            " + ",
            coming_reminders!($dialect, $todo, $now),
            " <= ",
            $limit,
            ")"
        )
    };
}
pub(super) use has_room_for_reminders;

/// SQL expression for the number of reminders of the row `$todo` whose time is after `$now`, or is
/// not known, as if it had none.
macro_rules! coming_reminders {
    (Sqlite, $todo:literal, $now:literal) => {
        concat!(
            "(SELECT count(*) FROM json_each(",
            $todo,
            ".reminders) AS wanted WHERE ",
            $todo,
            ".due_at IS NULL OR ",
            $todo,
            ".due_at - wanted.value * 60000000 > ",
            $now,
            ")"
        )
    };
    (Postgres, $todo:literal, $now:literal) => {
        concat!(
            "(SELECT count(*) FROM json_array_elements_text(CAST(",
            $todo,
            ".reminders AS json)) AS before WHERE ",
            $todo,
            ".due_at IS NULL OR ",
            $todo,
            ".due_at - CAST(before AS bigint) * interval '1 minute' > ",
            $now,
            ")"
        )
    };
}
pub(super) use coming_reminders;

/// SQL expression for the number of reminders in a stored text.
macro_rules! number_of {
    (Sqlite, $reminders:expr) => {
        concat!("json_array_length(", $reminders, ")")
    };
    (Postgres, $reminders:expr) => {
        concat!("json_array_length(CAST(", $reminders, " AS json))")
    };
}
pub(super) use number_of;
