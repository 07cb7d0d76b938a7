//! The import of a file: it is read as a whole, then its todos are created in pieces.

use std::collections::{BTreeSet, HashSet};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{
    csv,
    draft::Item,
    format::ImportFormat,
    google, ical, json, microsoft,
    sink::{FileList, Sink},
    statements::{Owned, Piece, StoredPieces, insert_lists, lock_counts},
    todoist, todotxt,
};
use crate::{
    authz::Caller,
    clock::new_id,
    core::Core,
    db::{
        FromRow, FromRows, RowsAffected, Statement,
        batch::{Batch, BatchError, Expected},
    },
    error::{BoxError, Error, FieldError, FieldErrors, Quota, Result},
    ids::TodoId,
    time_zone::TimeZone,
    todos::{
        IdempotencyKey,
        create::Limits,
        keyed_request::{KeyState, KeyUse, KeyedRequest, OK},
    },
};

/// Maximum size of a file in bytes.
pub(crate) const MAX_IMPORT_BYTES: usize = 2 << 20;
/// Maximum number of todos that are created in one transaction.
const PIECE: usize = 500;

/// How a file is imported.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ImportOptions {
    /// The format of the file.
    pub format: ImportFormat,
    /// Whether the file is only checked.
    pub dry_run: bool,
    /// Whether the todos that are valid are created although others are not.
    pub skip_invalid: bool,
    /// The zone of times that have none in the file. Default: UTC.
    pub time_zone: Option<TimeZone>,
    /// A key with which the same import is done once within 24 hours, as by
    /// [`create_once`](crate::todos::create_once), and continued if it was interrupted.
    pub key: Option<IdempotencyKey>,
}

impl ImportOptions {
    /// Options that are all or nothing, with times in UTC and without a key.
    #[must_use]
    pub fn new(format: ImportFormat) -> Self {
        Self { format, dry_run: false, skip_invalid: false, time_zone: None, key: None }
    }

    /// Sets whether the file is only checked.
    #[must_use]
    pub fn dry_run(mut self, dry_run: bool) -> Self {
        self.dry_run = dry_run;
        self
    }

    /// Sets whether the valid todos are created although others are not.
    #[must_use]
    pub fn skip_invalid(mut self, skip_invalid: bool) -> Self {
        self.skip_invalid = skip_invalid;
        self
    }

    /// Sets the zone of times that have none in the file.
    #[must_use]
    pub fn time_zone(mut self, zone: TimeZone) -> Self {
        self.time_zone = Some(zone);
        self
    }

    /// Sets the key.
    #[must_use]
    pub fn key(mut self, key: IdempotencyKey) -> Self {
        self.key = Some(key);
        self
    }
}

/// What an import did, or would do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ImportReport {
    /// Whether nothing was created, because the file was only checked.
    pub dry_run: bool,
    /// The number of todos that were created.
    pub created: usize,
    /// The number of todos that are invalid, and were skipped.
    pub invalid: usize,
    /// The number of todos in the trash of the file, which an import leaves out.
    pub trashed: usize,
    /// The names of the lists that were created.
    pub lists: Vec<String>,
    /// The first 100 errors of invalid todos, each with its line.
    pub errors: Vec<FieldError>,
    /// Whether an earlier call with this key did it.
    #[serde(skip)]
    pub is_replay: bool,
}

/// Imports a file of up to 2 MiB and 5,000 todos.
///
/// The todos keep the order of the file, their times and what else it has; they get new ids. A list
/// is found by its name, and created if the caller has none of that name.
///
/// Todos are created in pieces of up to 500, each in one transaction. An error before the first
/// piece creates nothing: a file that is invalid, or that exceeds a quota. An error later, such as
/// [`Error::Unavailable`], leaves the pieces before it: the same call with the same
/// [key](ImportOptions::key) creates the others.
///
/// # Errors
/// [`Error::FileInvalid`] if todos are invalid, unless they are
/// [skipped](ImportOptions::skip_invalid); [`Error::Invalid`] of the field `file` if it cannot be
/// read at all; [`Error::QuotaExceeded`] as [`create`](crate::todos::create), also of lists;
/// [`Error::KeyReused`] and [`Error::KeyInUse`] as
/// [`create_once`](crate::todos::create_once); [`Error::Busy`] if other files are read for more
/// than 10 s; else the errors of every operation.
pub async fn import(
    core: &Core,
    caller: &Caller,
    options: ImportOptions,
    file: Vec<u8>,
) -> Result<ImportReport> {
    let run = Run::begin(core, caller, options, file).await?;
    let (Outcome::Done(report) | Outcome::Replayed(_, report)) = Box::pin(run.run()).await?;
    Ok(report)
}

/// As [`import`]: the report as JSON, and whether it is that of an earlier request.
#[cfg(feature = "http")]
pub(crate) async fn import_or_replay(
    core: &Core,
    caller: &Caller,
    options: ImportOptions,
    file: Vec<u8>,
) -> Result<(String, bool)> {
    let run = Run::begin(core, caller, options, file).await?;
    match Box::pin(run.run()).await? {
        Outcome::Done(report) => Ok((encode(&report)?, false)),
        Outcome::Replayed(answer, _) => Ok((answer, true)),
    }
}

/// What is read of a stored answer.
#[derive(Deserialize)]
struct StoredReport {
    lists: Vec<String>,
}

fn encode(report: &ImportReport) -> Result<String> {
    serde_json::to_string(report).map_err(|error| Error::Internal(BoxError::new(error)))
}

enum Outcome {
    Done(ImportReport),
    /// The stored answer to an earlier request, and the report of the present one.
    Replayed(
        #[cfg_attr(not(feature = "http"), allow(dead_code, reason = "the answer over HTTP"))]
        String,
        ImportReport,
    ),
}

/// An import whose file has been read.
struct Run {
    core: Core,
    caller: Caller,
    now: DateTime<Utc>,
    /// Whether the file is only checked.
    checks_only: bool,
    key: Option<IdempotencyKey>,
    /// What the key belongs to.
    request: (&'static str, ImportFormat, bool, Option<String>, String),
    items: Vec<Item>,
    /// The lists that the file describes, and those that its todos name.
    lists: Vec<FileList>,
    report: ImportReport,
}

impl Run {
    /// Reads the file.
    async fn begin(
        core: &Core,
        caller: &Caller,
        options: ImportOptions,
        file: Vec<u8>,
    ) -> Result<Self> {
        let ImportOptions { format, dry_run, skip_invalid, time_zone, key } = options;
        if file.len() > MAX_IMPORT_BYTES {
            let message = "A file must be at most 2097152 bytes.";
            return Err(FieldError::new("file", "too_long", message).into());
        }
        let now = core.now();
        let zone = match &time_zone {
            Some(zone) => zone.clone(),
            None => TimeZone::parse("UTC")?,
        };
        let permit = core.import_permit().await?;
        let reading = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let hash = Sha256::digest(&file);
            let hash = BASE64_URL_SAFE_NO_PAD.encode(hash);
            read(format, &file, Sink::new(now, zone)).map(|sink| (hash, sink))
        });
        let read = reading.await.map_err(|error| Error::Internal(BoxError::new(error)))?;
        let (hash, Sink { items, mut lists, errors, invalid, trashed, .. }) = read?;
        if invalid > 0 && !skip_invalid {
            return Err(Error::FileInvalid { invalid, errors });
        }
        let mut known: HashSet<String> = lists.iter().map(|list| list.name.clone()).collect();
        for name in items.iter().filter_map(|item| item.list.as_ref()) {
            if known.insert(name.clone()) {
                lists.push(FileList { name: name.clone(), color: None });
            }
        }
        let report = ImportReport {
            dry_run,
            created: items.len(),
            invalid,
            trashed,
            lists: Vec::new(),
            errors: errors.into(),
            is_replay: false,
        };
        let zone = time_zone.map(|zone| zone.as_str().to_owned());
        let request = ("import", format, skip_invalid, zone, hash);
        let (core, caller) = (core.clone(), *caller);
        Ok(Self { core, caller, now, checks_only: dry_run, key, request, items, lists, report })
    }

    async fn run(mut self) -> Result<Outcome> {
        let keyed = self.keyed(None)?;
        if let Some(keyed) = keyed.as_ref().filter(|_| !self.checks_only) {
            let found = keyed.find(self.core.db().dialect());
            match keyed.judge(&self.fetch_one::<KeyState>(found).await?) {
                KeyUse::Repeated(answer) => {
                    // The rest follows from the file, which is the same.
                    let stored: StoredReport = serde_json::from_str(&answer)
                        .map_err(|error| Error::Internal(BoxError::new(error)))?;
                    self.report.lists = stored.lists;
                    self.report.is_replay = true;
                    return Ok(Outcome::Replayed(answer, self.report));
                }
                KeyUse::Refused(error) => return Err(error),
                KeyUse::Free { .. } => {}
            }
        }
        let stored = self.stored_pieces(keyed.as_ref()).await?;
        let is_stored = |number: usize| stored.contains(&number);
        let left = self.items.chunks(PIECE).zip(0..).filter(|(_, number)| !is_stored(*number));
        let left: Vec<Item> = left.flat_map(|(items, _)| items.iter().cloned()).collect();
        let owned = self.owned().await?;
        self.judge(&owned, &left)?;
        drop(left);
        let missing = self.missing_lists(&owned);
        self.report.lists = missing.iter().map(|list| list.name.clone()).collect();
        if self.checks_only {
            return Ok(Outcome::Done(self.report));
        }
        let owned = if missing.is_empty() { owned } else { self.create_lists(&missing).await? };
        // In ascending order: todos that were created at the same time keep the order of the file.
        let mut ids: Vec<TodoId> = self.items.iter().map(|_| new_id(self.now).into()).collect();
        ids.sort_unstable();
        let count = self.items.chunks(PIECE).len();
        for (number, (items, ids)) in self.items.chunks(PIECE).zip(ids.chunks(PIECE)).enumerate() {
            if !is_stored(number) {
                self.create(
                    number,
                    number + 1 == count,
                    &Piece { items, ids, lists: &owned.lists },
                )
                .await?;
            }
        }
        if count == 0 && keyed.is_some() {
            let batch = self.store_answer(Batch::default())?;
            self.execute(batch).await?;
        }
        Ok(Outcome::Done(self.report))
    }

    /// The key of the request, or that of a piece of it.
    fn keyed(&self, piece: Option<usize>) -> Result<Option<KeyedRequest>> {
        let Some(key) = &self.key else { return Ok(None) };
        let key = piece.map_or_else(|| key.clone(), |number| key.piece(number));
        KeyedRequest::new(self.caller, self.now, key, &self.request).map(Some)
    }

    /// The pieces that an interrupted request with this key has created.
    async fn stored_pieces(&self, keyed: Option<&KeyedRequest>) -> Result<BTreeSet<usize>> {
        let (Some(keyed), Some(key)) = (keyed, &self.key) else { return Ok(BTreeSet::new()) };
        let find = StoredPieces::find(self.caller, key, self.now);
        let StoredPieces(pieces) = self.fetch(find).await?;
        if pieces.iter().any(|(_, fingerprint)| !keyed.has_fingerprint(fingerprint)) {
            return Err(Error::KeyReused);
        }
        let number = |key: &str| key.rsplit_once(' ')?.1.parse().ok();
        Ok(pieces.iter().filter_map(|(key, _)| number(key)).collect())
    }

    async fn owned(&self) -> Result<Owned> {
        let owned: Owned = self.fetch(Owned::find(self.caller)).await?;
        // A trusted caller's account may not exist.
        if owned.is_authorized && owned.todos.is_some() {
            Ok(owned)
        } else {
            Err(Error::Unauthenticated)
        }
    }

    /// Fails if these todos, or the lists of the file, exceed a quota.
    fn judge(&self, owned: &Owned, items: &[Item]) -> Result<()> {
        let used = owned.todos.unwrap_or_default().unsigned_abs();
        check_quota(Quota::Todos, self.core.max_todos(), used, items.len())?;
        let tags: BTreeSet<&str> = items
            .iter()
            .flat_map(|item| item.tags.iter())
            .map(super::super::tags::Tag::as_str)
            .collect();
        let new = tags.into_iter().filter(|tag| !owned.tags.contains(*tag)).count();
        let used = owned.tags.len().try_into().unwrap_or(u64::MAX);
        check_quota(Quota::Tags, self.core.max_tags(), used, new)?;
        let reminders = items.iter().map(|item| item.open_reminders(self.now)).sum();
        let used = owned.reminders.unsigned_abs();
        check_quota(Quota::Reminders, self.core.max_reminders(), used, reminders)?;
        let lists = owned.list_count.try_into().unwrap_or(u64::MAX);
        check_quota(Quota::Lists, self.core.max_lists(), lists, self.missing_lists(owned).len())
    }

    fn missing_lists(&self, owned: &Owned) -> Vec<FileList> {
        let missing = self.lists.iter().filter(|list| !owned.lists.contains_key(&list.name));
        missing.cloned().collect()
    }

    /// Creates lists, and returns what the user then has.
    async fn create_lists(&self, lists: &[FileList]) -> Result<Owned> {
        let db = self.core.db();
        let insert =
            insert_lists(self.caller, db.dialect(), lists, self.now, self.core.max_lists());
        // Not all, if others were created meanwhile.
        self.execute(self.locked().then(insert, Expected::Any)).await?;
        let owned = self.owned().await?;
        // Other lists were created meanwhile.
        let missing = self.missing_lists(&owned).len();
        let used = owned.list_count.try_into().unwrap_or(u64::MAX);
        check_quota(Quota::Lists, self.core.max_lists(), used, missing)?;
        if missing == 0 { Ok(owned) } else { Err(Error::Busy) }
    }

    /// Creates a piece; with the last one, the answer is stored.
    async fn create(&self, number: usize, is_last: bool, piece: &Piece<'_>) -> Result<()> {
        let dialect = self.core.db().dialect();
        let insert = piece.insert(self.caller, dialect, Limits::of(&self.core), self.now);
        let rows = piece.items.len().try_into().unwrap_or(u64::MAX);
        let mut batch = self.locked().then(insert, Expected::Rows(rows));
        for forget in piece.forget_past_reminders(self.caller, dialect, self.now) {
            batch = batch.then(forget, Expected::Any);
        }
        if let Some(keyed) = self.keyed(Some(number))? {
            batch = batch
                .then(keyed.free(), Expected::Any)
                .then(keyed.store(OK, String::new()), Expected::Rows(1));
        }
        if is_last {
            batch = self.store_answer(batch)?;
        }
        if self.execute(batch).await? {
            return Ok(());
        }
        // A quota is used up since it was checked, or a list was deleted.
        self.judge(&self.owned().await?, piece.items)?;
        Err(Error::Busy)
    }

    /// The begin of a transaction in which the quotas are exact.
    fn locked(&self) -> Batch {
        let batch = Batch::default();
        match lock_counts(self.caller, self.core.db().dialect()) {
            Some(lock) => batch.then(lock, Expected::Any),
            None => batch,
        }
    }

    /// Adds the statements that store the answer, if the request has a key.
    fn store_answer(&self, batch: Batch) -> Result<Batch> {
        let Some(keyed) = self.keyed(None)? else { return Ok(batch) };
        let answer = encode(&self.report)?;
        let batch = batch.then(keyed.free(), Expected::Any);
        Ok(batch.then(keyed.store(OK, answer), Expected::Rows(1)))
    }

    /// Runs a batch; false if it had no effect.
    async fn execute(&self, batch: Batch) -> Result<bool> {
        let db = self.core.db();
        let has_key = self.key.is_some();
        let run = async move {
            match db.execute_batch::<RowsAffected>(batch).await {
                Ok(_) => Ok(true),
                Err(BatchError::Unmet(_)) => Ok(false),
                Err(BatchError::Db(fault)) if fault.is_foreign_key_violation() => {
                    Err(Error::Unauthenticated)
                }
                // Another request with this key creates the piece.
                Err(BatchError::Db(fault))
                    if has_key && (fault.is_unique_violation() || fault.is_lock_timeout()) =>
                {
                    Err(Error::KeyInUse)
                }
                Err(BatchError::Db(fault)) => Err(fault.into()),
            }
        };
        self.core.write(self.caller.user_id(), run).await
    }

    async fn fetch<R: FromRows>(&self, statement: Statement) -> Result<R> {
        let db = self.core.db();
        let read = async move { Ok(db.fetch(statement).await?) };
        self.core.read(self.caller.user_id(), read).await
    }

    async fn fetch_one<T>(&self, statement: Statement) -> Result<T>
    where
        T: FromRow + Send + 'static,
    {
        let db = self.core.db();
        let read = async move { Ok(db.fetch_one(statement).await?) };
        self.core.read(self.caller.user_id(), read).await
    }
}

/// Fails if `new` more exceed a quota; 0 is no limit.
fn check_quota(of: Quota, limit: u32, used: u64, new: usize) -> Result<()> {
    let limit = u64::from(limit);
    let after = used.saturating_add(new.try_into().unwrap_or(u64::MAX));
    if new == 0 || limit == 0 || after <= limit {
        return Ok(());
    }
    Err(Error::QuotaExceeded { of, limit, used })
}

/// Reads a file.
pub(super) fn read(format: ImportFormat, file: &[u8], mut sink: Sink) -> Result<Sink, FieldErrors> {
    let rejoined;
    let file = if format == ImportFormat::Ics && std::str::from_utf8(file).is_err() {
        rejoined = ical::rejoin(file);
        &rejoined
    } else {
        file
    };
    let text = std::str::from_utf8(file).map_err(|error| {
        let before = file.get(..error.valid_up_to()).unwrap_or_default();
        let line = before.split(|byte| *byte == b'\n').count();
        FieldError::new("file", "invalid", "The file must be text in UTF-8.")
            .on_line(u32::try_from(line).unwrap_or(u32::MAX))
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    match format {
        ImportFormat::Json => json::read(text, &mut sink),
        ImportFormat::Csv => csv::read(text, &mut sink),
        ImportFormat::Todotxt => todotxt::read(text, &mut sink),
        ImportFormat::Ics => ical::read(text, &mut sink),
        ImportFormat::Todoist => todoist::read(text, &mut sink),
        ImportFormat::Microsoft => microsoft::read(text, &mut sink),
        ImportFormat::Google => google::read(text, &mut sink),
    }?;
    Ok(sink)
}
