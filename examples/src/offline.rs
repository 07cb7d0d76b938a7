//! A copy of a user's todos that is edited without a connection, and later synchronized with the
//! server and so with the user's other devices. No change is lost, made twice or silently
//! overwritten:
//!
//! - An edit is queued, and stays in the queue until the server has answered. The creation of a
//!   todo has an `Idempotency-Key`: after a lost answer it is sent again, and there is one todo.
//! - Every other change has `If-Match`. If the todo was changed elsewhere meanwhile, the fields of
//!   both changes are merged; where both changed one field, the server's value stays and the edit
//!   is reported.
//! - What happens elsewhere comes from `/changes`. After a 410 the copy begins again with the list.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    io::Write,
};

use crate::{
    Failure,
    client::{Change, LoggedIn, Problem, Todo, Versioned},
};

/// Attempts to send one edit while the todo is changed elsewhere.
const ATTEMPTS: usize = 5;
/// Todos on a page of the list.
const PAGE: u16 = 100;

/// A copy of a user's todos on one device.
#[derive(Debug)]
pub struct Replica {
    server: LoggedIn,
    device: String,
    /// Number of keys that this device has used. A program that ends stores it with the copy.
    keys: u64,
    /// The position in the log of changes that the copy has reached.
    position: Option<String>,
    /// The todos by id, as the server has returned them.
    todos: BTreeMap<String, Todo>,
    /// The edits that the server has not confirmed.
    queue: VecDeque<Edit>,
    /// Edits that were not made, since the todo was changed or deleted elsewhere.
    rejected: Vec<String>,
}

/// An edit. A todo that the server does not know yet has the key of its creation as its id.
#[derive(Clone, Debug)]
enum Edit {
    Create {
        key: String,
        title: String,
    },
    /// `base` is the todo that was edited; none if the server does not know it yet.
    Change {
        id: String,
        base: Option<Todo>,
        field: Field,
    },
    Delete {
        id: String,
        base: Option<Todo>,
    },
}

/// The new value of a field.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Field {
    Title(String),
    Completed(bool),
}

impl Field {
    /// The value of the same field in a todo.
    fn of(&self, todo: &Todo) -> Self {
        match self {
            Self::Title(_) => Self::Title(todo.title.clone()),
            Self::Completed(_) => Self::Completed(todo.completed),
        }
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Title(title) => write!(f, "title {title:?}"),
            Self::Completed(completed) => write!(f, "completed {completed}"),
        }
    }
}

impl Replica {
    /// An empty copy. `device` is unique among the user's devices.
    #[must_use]
    pub fn new(server: LoggedIn, device: &str) -> Self {
        Self {
            server,
            device: device.to_owned(),
            keys: 0,
            position: None,
            todos: BTreeMap::new(),
            queue: VecDeque::new(),
            rejected: Vec::new(),
        }
    }

    /// Adds a todo, and returns its id until the next [`Replica::sync`].
    pub fn create(&mut self, title: &str) -> String {
        self.keys += 1;
        let key = format!("{}-{}", self.device, self.keys);
        self.queue.push_back(Edit::Create { key: key.clone(), title: title.to_owned() });
        key
    }

    /// Changes the title of a todo.
    pub fn rename(&mut self, id: &str, title: &str) {
        self.change(id, Field::Title(title.to_owned()));
    }

    /// Completes a todo.
    pub fn complete(&mut self, id: &str) {
        self.change(id, Field::Completed(true));
    }

    fn change(&mut self, id: &str, field: Field) {
        let base = self.todos.get(id).cloned();
        self.queue.push_back(Edit::Change { id: id.to_owned(), base, field });
    }

    /// Deletes a todo.
    pub fn delete(&mut self, id: &str) {
        let base = self.todos.get(id).cloned();
        self.queue.push_back(Edit::Delete { id: id.to_owned(), base });
    }

    /// The titles of the todos with the queued edits, in order, the completed ones in parentheses.
    #[must_use]
    pub fn titles(&self) -> Vec<String> {
        let mut todos: BTreeMap<&str, (&str, bool)> = BTreeMap::new();
        for todo in self.todos.values() {
            todos.insert(&todo.id, (&todo.title, todo.completed));
        }
        for edit in &self.queue {
            match edit {
                Edit::Create { key, title } => {
                    todos.insert(key, (title, false));
                }
                Edit::Change { id, field, .. } => {
                    if let Some((title, completed)) = todos.get_mut(id.as_str()) {
                        match field {
                            Field::Title(new) => *title = new,
                            Field::Completed(new) => *completed = *new,
                        }
                    }
                }
                Edit::Delete { id, .. } => {
                    todos.remove(id.as_str());
                }
            }
        }
        let text = |(title, completed): &(&str, bool)| {
            if *completed { format!("({title})") } else { (*title).to_owned() }
        };
        let mut titles: Vec<String> = todos.values().map(text).collect();
        titles.sort();
        titles
    }

    /// The id of the todo with a title.
    #[must_use]
    pub fn find(&self, title: &str) -> Option<String> {
        self.todos.values().find(|todo| todo.title == title).map(|todo| todo.id.clone())
    }

    /// The ids of the todos.
    #[must_use]
    pub fn ids(&self) -> Vec<String> {
        self.todos.keys().cloned().collect()
    }

    /// The edits that were not made, since the last call.
    pub fn take_rejected(&mut self) -> Vec<String> {
        std::mem::take(&mut self.rejected)
    }

    /// Sends the queued edits, then reads the changes of other devices.
    ///
    /// # Errors
    /// Without a connection, or if the server rejects an edit. The edits that the server has not
    /// confirmed stay in the queue.
    pub async fn sync(&mut self) -> Result<(), Failure> {
        while let Some(edit) = self.queue.front().cloned() {
            self.send(edit).await?;
            self.queue.pop_front();
        }
        self.follow().await
    }

    async fn send(&mut self, edit: Edit) -> Result<(), Failure> {
        match edit {
            Edit::Create { key, title } => {
                let created = self.server.create_once(&key, &title).await?.todo;
                // Later edits in the queue are of this todo.
                for edit in self.queue.iter_mut().skip(1) {
                    if let Edit::Change { id, base, .. } | Edit::Delete { id, base } = edit
                        && *id == key
                    {
                        id.clone_from(&created.id);
                        *base = Some(created.clone());
                    }
                }
                self.todos.insert(created.id.clone(), created);
                Ok(())
            }
            Edit::Change { id, base, field } => self.send_change(&id, base, field).await,
            Edit::Delete { id, base } => self.send_deletion(&id, base).await,
        }
    }

    /// Sends a change on condition of the version that it was merged with.
    async fn send_change(
        &mut self,
        id: &str,
        base: Option<Todo>,
        field: Field,
    ) -> Result<(), Failure> {
        let Some(mut found) = self.read(id, "changed").await? else { return Ok(()) };
        for _ in 0..ATTEMPTS {
            let now = field.of(&found.todo);
            if now == field {
                // The other device made the same change; or it was this one, and the answer was
                // lost.
                return Ok(());
            }
            if base.as_ref().is_some_and(|base| field.of(base) != now) {
                self.rejected.push(format!("{field}: it is {now} now"));
                return Ok(());
            }
            let Versioned { etag, .. } = &found;
            let sent = match &field {
                Field::Title(title) => self.server.rename(id, etag, title).await,
                Field::Completed(completed) => {
                    self.server.set_completed(id, etag, *completed).await
                }
            };
            match sent {
                Ok(Versioned { todo, .. }) => {
                    self.replace_base(&todo);
                    self.todos.insert(todo.id.clone(), todo);
                    return Ok(());
                }
                // Changed since it was read: the answer has the todo as it is now.
                Err(error) => found = current(&error).ok_or(error)?,
            }
        }
        Err("the todo is changed elsewhere all the time".into())
    }

    async fn send_deletion(&mut self, id: &str, base: Option<Todo>) -> Result<(), Failure> {
        let Some(found) = self.read(id, "deleted").await? else { return Ok(()) };
        // A todo that was changed elsewhere is kept.
        if base.is_none_or(|base| base.updated_at == found.todo.updated_at) {
            match self.server.delete(id, &found.etag).await {
                Ok(()) => {
                    self.todos.remove(id);
                    return Ok(());
                }
                Err(error) if current(&error).is_some() => {}
                Err(error) => return Err(error),
            }
        }
        self.rejected.push(format!("deletion of {:?}: it was changed", found.todo.title));
        Ok(())
    }

    /// Reads a todo; none if it was deleted.
    async fn read(&mut self, id: &str, edit: &str) -> Result<Option<Versioned>, Failure> {
        match self.server.get(id).await {
            Ok(found) => Ok(Some(found)),
            Err(error) if has_status(&error, 404) => {
                // The copy still has it, unless this is a deletion whose answer was lost.
                if let Some(todo) = self.todos.remove(id).filter(|_| edit != "deleted") {
                    self.rejected.push(format!("{:?} {edit}: it was deleted", todo.title));
                }
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Later edits of a todo in the queue are edits of what this device has just sent.
    fn replace_base(&mut self, todo: &Todo) {
        for edit in self.queue.iter_mut().skip(1) {
            if let Edit::Change { id, base, .. } | Edit::Delete { id, base } = edit
                && *id == todo.id
            {
                *base = Some(todo.clone());
            }
        }
    }

    /// Reads what has changed since the last time.
    async fn follow(&mut self) -> Result<(), Failure> {
        if self.position.is_none() {
            // The position first: what changes while the list is read comes again.
            self.position = Some(self.server.changes(None).await?.next);
            self.read_list().await?;
        }
        loop {
            let page = match self.server.changes(self.position.as_deref()).await {
                Ok(page) => page,
                // The log does not reach back so far: the next time begins with the list.
                Err(error) => {
                    if has_status(&error, 410) {
                        self.position = None;
                    }
                    return Err(error);
                }
            };
            for change in page.changes {
                match change {
                    Change::Todo { todo } => self.todos.insert(todo.id.clone(), todo),
                    Change::Deleted { id } => self.todos.remove(&id),
                    Change::Other => None,
                };
            }
            self.position = Some(page.next);
            if !page.has_more {
                return Ok(());
            }
        }
    }

    async fn read_list(&mut self) -> Result<(), Failure> {
        let mut todos = BTreeMap::new();
        let mut cursor = None;
        loop {
            let page = self.server.page(PAGE, cursor.as_deref()).await?;
            todos.extend(page.todos.into_iter().map(|todo| (todo.id.clone(), todo)));
            cursor = page.next_cursor;
            if cursor.is_none() {
                self.todos = todos;
                return Ok(());
            }
        }
    }
}

fn has_status(error: &Failure, status: u16) -> bool {
    error.downcast_ref::<Problem>().is_some_and(|problem| problem.status == status)
}

/// The todo as it is now, from a 412.
fn current(error: &Failure) -> Option<Versioned> {
    let problem = error.downcast_ref::<Problem>()?;
    Some(Versioned { todo: problem.current.clone()?, etag: problem.etag.clone()? })
}

/// Runs the example: two devices of one user, edited without a connection and synchronized.
///
/// # Errors
/// A [`Problem`], or an error of the connection or of `out`.
pub async fn run(user: LoggedIn, out: &mut impl Write) -> Result<(), Failure> {
    let mut phone = Replica::new(user.clone(), "phone");
    let mut laptop = Replica::new(user, "laptop");
    phone.create("Buy milk");
    phone.create("Water the plants");
    phone.sync().await?;
    laptop.sync().await?;
    writeln!(out, "laptop: {}", laptop.titles().join(", "))?;

    // Both devices are offline.
    let id = |replica: &Replica, title| replica.find(title).ok_or("the todo was not found");
    let milk = id(&phone, "Buy milk")?;
    phone.rename(&milk, "Buy oat milk");
    phone.complete(&id(&phone, "Water the plants")?);
    let dentist = phone.create("Call the dentist");
    phone.complete(&dentist);
    laptop.rename(&milk, "Buy soy milk");
    laptop.complete(&milk);
    laptop.rename(&id(&laptop, "Water the plants")?, "Water all plants");
    writeln!(out, "phone, offline: {}", phone.titles().join(", "))?;
    writeln!(out, "laptop, offline: {}", laptop.titles().join(", "))?;

    // The laptop's changes meet those of the phone.
    phone.sync().await?;
    laptop.sync().await?;
    for rejected in laptop.take_rejected() {
        writeln!(out, "not made: {rejected}")?;
    }
    phone.sync().await?;
    writeln!(out, "phone: {}", phone.titles().join(", "))?;
    writeln!(out, "laptop: {}", laptop.titles().join(", "))?;
    Ok(())
}
