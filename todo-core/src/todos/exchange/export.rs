//! The export of all todos of a user, in pieces.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures_util::{Stream, stream};

use super::{
    csv,
    export_rows::{Extras, ListRows},
    format::ExportFormat,
    ical, json,
    rows::Record,
    todotxt,
};
use crate::{
    authz::Caller,
    core::Core,
    db::FromRows as _,
    error::{BoxError, Error, FieldError, Result},
    ids::{ListId, TodoId},
    todos::{Todo, TodoWalk, WalkPage},
};

/// What an export has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExportOptions {
    /// The format of the file.
    pub format: ExportFormat,
    /// Whether it has the todos in the trash, which only [`ExportFormat::Json`] can have.
    pub trash: bool,
}

impl ExportOptions {
    /// Options without the trash.
    #[must_use]
    pub fn new(format: ExportFormat) -> Self {
        Self { format, trash: false }
    }

    /// Sets whether the export has the todos in the trash.
    #[must_use]
    pub fn trash(mut self, trash: bool) -> Self {
        self.trash = trash;
        self
    }
}

/// An export that is being read: see [`export`].
pub struct Export {
    core: Core,
    caller: Caller,
    options: ExportOptions,
    walk: TodoWalk,
    lists: Vec<(ListId, String, Option<String>)>,
    /// Todos that were read and not written, with the times of their deletion.
    pending: VecDeque<(Todo, Option<DateTime<Utc>>)>,
    progress: Progress,
}

/// What an export has written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    Nothing,
    Todos { has_some: bool },
    Trash { has_some: bool },
    End,
}

/// Begins an export of all todos of the caller, in the order of their creation.
///
/// The pieces are separate reads, not one snapshot. A todo that exists throughout is exported once,
/// as it is when it is read. An import of the JSON into another account and an export of that give
/// the same todos, byte for byte, unless both have a trash.
///
/// ```
/// use todo_core::{Core, Error, auth::Caller, todos::{self, ExportFormat, ExportOptions}};
///
/// async fn calendar(core: &Core, caller: &Caller) -> Result<Vec<u8>, Error> {
///     let options = ExportOptions::new(ExportFormat::Ics);
///     let mut export = todos::export(core, caller, options).await?;
///     let mut file = Vec::new();
///     while let Some(piece) = export.next().await? {
///         file.extend_from_slice(&piece);
///     }
///     Ok(file)
/// }
/// ```
///
/// # Errors
/// [`Error::Invalid`] if another format than JSON is to have the trash;
/// [`Error::Unauthenticated`] if the caller's session has ended; else the errors of every
/// operation: [`Error::Busy`], [`Error::Unavailable`], [`Error::Internal`].
pub async fn export(core: &Core, caller: &Caller, options: ExportOptions) -> Result<Export> {
    if options.trash && options.format != ExportFormat::Json {
        let message = "Trash can be true with the format json only.";
        return Err(FieldError::new("trash", "unsupported", message).into());
    }
    Ok(Export {
        core: core.clone(),
        caller: *caller,
        options,
        walk: TodoWalk::new(core, caller)?,
        lists: read_lists(core, *caller).await?,
        pending: VecDeque::new(),
        progress: Progress::Nothing,
    })
}

impl Export {
    /// Reads the next piece of the file: up to 500 todos. A piece may be empty. Returns `None`
    /// after the last piece: a file without it is incomplete.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] if the caller's session has ended, also between two pieces; else
    /// as [`export`]. The call can be repeated after an error.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        let mut out = Vec::new();
        match self.progress {
            Progress::End => return Ok(None),
            Progress::Nothing => {
                self.begin(&mut out).map_err(internal)?;
                self.progress = Progress::Todos { has_some: false };
            }
            Progress::Todos { .. } | Progress::Trash { .. } => {
                if self.pending.is_empty() {
                    self.read().await?;
                }
                if self.pending.is_empty() {
                    self.end(&mut out);
                } else {
                    self.write_pending(&mut out).await?;
                }
            }
        }
        Ok(Some(out.into()))
    }

    /// The pieces of the file, one by one. The stream ends after an error.
    pub fn into_stream(self) -> impl Stream<Item = Result<Bytes>> + Send + 'static {
        stream::try_unfold(self, |mut export| async move {
            Ok(export.next().await?.map(|piece| (piece, export)))
        })
    }

    fn begin(&self, out: &mut Vec<u8>) -> std::io::Result<()> {
        match self.options.format {
            ExportFormat::Json => {
                // Two lists of one name are one list of an import.
                let mut names = std::collections::HashSet::new();
                let lists = self.lists.iter().filter(|(_, name, _)| names.insert(name.as_str()));
                json::begin(out, lists.map(|(_, name, color)| (name.as_str(), color.as_deref())))
            }
            ExportFormat::Csv => csv::begin(out),
            ExportFormat::Todotxt => Ok(()),
            ExportFormat::Ics => {
                ical::begin(out);
                Ok(())
            }
        }
    }

    /// Reads the next page of todos, or of the trash.
    async fn read(&mut self) -> Result<()> {
        if !self.options.trash {
            let page = self.walk.next_todos().await?;
            self.pending.extend(page.into_iter().flatten().map(|todo| (todo, None)));
            return Ok(());
        }
        // A page of the trash may be empty.
        while self.pending.is_empty() {
            match self.walk.next().await? {
                None => return Ok(()),
                Some(WalkPage::Todos(todos)) => {
                    self.pending.extend(todos.into_iter().map(|todo| (todo, None)));
                }
                Some(WalkPage::Trash(todos)) => {
                    let todos = todos.into_iter();
                    self.pending.extend(todos.map(|todo| (todo.todo, Some(todo.deleted_at))));
                }
            }
        }
        Ok(())
    }

    /// Writes the pending todos, or as many as their kept lines allow.
    async fn write_pending(&mut self, out: &mut Vec<u8>) -> Result<()> {
        let is_trash = self.pending.front().is_some_and(|(_, deleted_at)| deleted_at.is_some());
        let extras = self.read_extras(is_trash).await?;
        let last = extras.rows.last().map(|(id, ..)| *id).filter(|_| extras.is_full());
        let extras: HashMap<TodoId, _> =
            extras.rows.into_iter().map(|(id, position, ical)| (id, (position, ical))).collect();
        let known = |list: ListId, lists: &[(ListId, String, Option<String>)]| {
            lists.iter().any(|(id, ..)| *id == list)
        };
        // A list was created since the export began.
        let lists = &self.lists;
        if self.pending.iter().filter_map(|(todo, _)| todo.list_id).any(|id| !known(id, lists)) {
            self.lists = read_lists(&self.core, self.caller).await?;
        }
        while let Some((todo, deleted_at)) = self.pending.pop_front() {
            let (position, ical) = match extras.get(&todo.id) {
                Some((position, ical)) => (position.as_deref(), ical.as_deref()),
                None => (None, None),
            };
            let named = self.lists.iter().find(|(id, ..)| Some(*id) == todo.list_id);
            let named = named.map(|(_, name, _)| name.as_str());
            let record = Record { todo: &todo, list: named, position, ical, deleted_at };
            self.progress =
                write(self.options.format, self.progress, out, &record).map_err(internal)?;
            if last == Some(todo.id) {
                break;
            }
        }
        Ok(())
    }

    async fn read_extras(&self, is_trash: bool) -> Result<Extras> {
        if self.options.format == ExportFormat::Todotxt {
            return Ok(Extras::default());
        }
        let db = self.core.db();
        let ids = self.pending.iter().map(|(todo, _)| todo.id);
        let find = Extras::find(self.caller, db.dialect(), ids, is_trash);
        let read = async move { Ok(db.fetch(find).await?) };
        self.core.read(self.caller.user_id(), read).await
    }

    fn end(&mut self, out: &mut Vec<u8>) {
        match self.options.format {
            ExportFormat::Json => {
                if self.options.trash && !matches!(self.progress, Progress::Trash { .. }) {
                    json::begin_trash(out);
                }
                json::end(out);
            }
            ExportFormat::Ics => ical::end(out),
            ExportFormat::Csv | ExportFormat::Todotxt => {}
        }
        self.progress = Progress::End;
    }
}

/// Writes a todo, and returns what is written then.
fn write(
    format: ExportFormat,
    progress: Progress,
    out: &mut Vec<u8>,
    record: &Record<'_>,
) -> std::io::Result<Progress> {
    let (is_first, next) = match (record.deleted_at, progress) {
        (None, progress) => {
            (progress == Progress::Todos { has_some: false }, Progress::Todos { has_some: true })
        }
        (Some(_), Progress::Trash { has_some }) => (!has_some, Progress::Trash { has_some: true }),
        (Some(_), _) => {
            json::begin_trash(out);
            (true, Progress::Trash { has_some: true })
        }
    };
    match format {
        ExportFormat::Json => json::write(out, record, is_first),
        ExportFormat::Csv => csv::write(out, record),
        ExportFormat::Todotxt => todotxt::write(out, record),
        ExportFormat::Ics => ical::write(out, record),
    }?;
    Ok(next)
}

async fn read_lists(core: &Core, caller: Caller) -> Result<Vec<(ListId, String, Option<String>)>> {
    let db = core.db();
    let read = async move {
        let rows: ListRows = db.fetch(ListRows::find(caller)).await?;
        if rows.is_authorized { Ok(rows.lists) } else { Err(Error::Unauthenticated) }
    };
    core.read(caller.user_id(), read).await
}

fn internal(error: std::io::Error) -> Error {
    Error::Internal(BoxError::new(error))
}

impl std::fmt::Debug for Export {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Export").field("options", &self.options).finish_non_exhaustive()
    }
}
