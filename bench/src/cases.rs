//! The cases: their requests, the targets that run them, and the equivalent SQL statements. `load`
//! measures them.

use std::fmt;

use clap::ValueEnum;
use serde_json::{Value, json};

use crate::{
    browse::ClientMode,
    seed::{self, OWNERS, PASSWORD, SPARE, STEP, TODOS, User},
};

/// Capacity of the login queue in connections; beyond it, 503 is the expected response.
const LOGIN_QUEUE: u32 = 128;
/// Length of a cycle of [`Case::Mixed`]: 6 reads of one, 6 lists, a create, a patch, a completion.
const MIX: usize = 15;

/// A kind of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Case {
    /// GET /health
    Health,
    /// One todo
    Get,
    /// The first 50 of 60 todos
    List,
    /// The first 50 of 1,000,000 todos
    ListMillion,
    /// A new todo
    Create,
    /// A todo's title and priority
    Patch,
    /// A todo completed, or reopened
    Complete,
    /// An existing todo deleted
    Delete,
    /// The correct password
    Login,
    /// 80 % reads (one todo, the first 50), 20 % writes (create, patch, complete)
    Mixed,
}

/// A server on a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum ServerKind {
    /// todo-hyper-min on SQLite
    HyperSqlite,
    /// todo-server on SQLite
    SalvoSqlite,
    /// todo-hyper-min on PostgreSQL
    HyperPostgres,
    /// todo-server on PostgreSQL
    SalvoPostgres,
}

/// A statement that pgbench runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Statement {
    Select,
    Page,
    Insert,
    Update,
}

/// A measured program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Target {
    BareHyper,
    BareSalvo,
    Server(ServerKind),
    Pgbench(Statement),
    /// Password hashes without a server, on all cores.
    Argon2,
}

/// One request, as wrk and the driver send it.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: &'static str,
    /// Contains [`SPARE`] if each request addresses another todo.
    pub(crate) path: String,
    /// Empty if not needed.
    pub(crate) token: String,
    /// JSON, or empty.
    pub(crate) body: String,
}

impl ServerKind {
    pub(crate) const ALL: [Self; 4] =
        [Self::HyperSqlite, Self::SalvoSqlite, Self::HyperPostgres, Self::SalvoPostgres];

    pub(crate) fn program(self) -> &'static str {
        match self {
            Self::HyperSqlite | Self::HyperPostgres => "todo-hyper-min",
            Self::SalvoSqlite | Self::SalvoPostgres => "todo-server",
        }
    }

    /// Whether the server supports this mode.
    pub(crate) fn supports(self, mode: ClientMode) -> bool {
        mode != ClientMode::Http2 || self.program() == "todo-server"
    }

    /// todo-hyper-min on the same database.
    pub(crate) fn hyper(self) -> Self {
        if self.on_sqlite() { Self::HyperSqlite } else { Self::HyperPostgres }
    }

    pub(crate) fn on_sqlite(self) -> bool {
        matches!(self, Self::HyperSqlite | Self::SalvoSqlite)
    }

    /// The bare server of the same framework.
    pub(crate) fn bare(self) -> Target {
        match self {
            Self::HyperSqlite | Self::HyperPostgres => Target::BareHyper,
            Self::SalvoSqlite | Self::SalvoPostgres => Target::BareSalvo,
        }
    }
}

impl fmt::Display for ServerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let database = if self.on_sqlite() { "SQLite" } else { "PostgreSQL" };
        write!(f, "{}, {database}", self.program())
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BareHyper => f.write_str("bare hyper"),
            Self::BareSalvo => f.write_str("bare salvo"),
            Self::Server(kind) => kind.fmt(f),
            Self::Pgbench(Statement::Select) => f.write_str("pgbench, select of the row"),
            Self::Pgbench(Statement::Page) => f.write_str("pgbench, select of the page"),
            Self::Pgbench(Statement::Insert) => f.write_str("pgbench, insert of the row"),
            Self::Pgbench(Statement::Update) => f.write_str("pgbench, update of the row"),
            Self::Argon2 => f.write_str("argon2 alone"),
        }
    }
}

impl Case {
    pub(crate) const ALL: [Self; 10] = [
        Self::Health,
        Self::Get,
        Self::List,
        Self::ListMillion,
        Self::Create,
        Self::Patch,
        Self::Complete,
        Self::Delete,
        Self::Login,
        Self::Mixed,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Health => "health",
            Self::Get => "get one",
            Self::List => "list 50",
            Self::ListMillion => "list 50 of 1,000,000",
            Self::Create => "create",
            Self::Patch => "patch",
            Self::Complete => "complete",
            Self::Delete => "delete",
            Self::Login => "login",
            Self::Mixed => "mixed 80/20",
        }
    }

    /// Whether the case is meant for this number of connections.
    pub(crate) fn is_for(self, connections: u32) -> bool {
        self != Self::Login || connections <= LOGIN_QUEUE
    }

    /// Targets measured along with the servers: the first is the reference of their results, the
    /// others are for information. pgbench's apply to servers on PostgreSQL.
    pub(crate) fn references(self) -> &'static [Target] {
        use Statement::{Insert, Page, Select, Update};
        match self {
            Self::Get => &[Target::Pgbench(Select)],
            Self::List | Self::ListMillion => &[Target::Pgbench(Select), Target::Pgbench(Page)],
            Self::Create => &[Target::Pgbench(Insert)],
            Self::Patch => &[Target::Pgbench(Insert), Target::Pgbench(Update)],
            Self::Login => &[Target::Argon2],
            Self::Health | Self::Complete | Self::Delete | Self::Mixed => &[],
        }
    }

    /// All targets of a round, in order.
    pub(crate) fn targets(self, kinds: &[ServerKind]) -> Vec<Target> {
        let mut targets = Vec::new();
        for kind in ServerKind::ALL.into_iter().filter(|kind| kinds.contains(kind)) {
            if !targets.contains(&kind.bare()) {
                targets.push(kind.bare());
            }
            targets.push(Target::Server(kind));
        }
        let on_postgres = kinds.iter().any(|kind| !kind.on_sqlite());
        let is_included = |target: &&Target| on_postgres || !matches!(target, Target::Pgbench(_));
        targets.extend(self.references().iter().filter(is_included));
        targets
    }

    /// The requests, sent repeatedly.
    pub(crate) fn requests(self, users: &[User]) -> Vec<Request> {
        // Each change is reverted in the next cycle: an update without a change is cheaper than one
        // with.
        let cycles =
            |number: usize| (0..number).flat_map(|cycle| (0..OWNERS).map(move |i| (cycle, i)));
        match self {
            Self::Health => vec![Request {
                method: "GET",
                path: "/health".into(),
                token: String::new(),
                body: String::new(),
            }],
            Self::ListMillion => vec![Self::List.request(&users[0], 0, 0)],
            Self::Mixed => {
                let whole = 3 * OWNERS; // the least that both OWNERS and MIX divide
                (0..2 * whole).map(|at| mixed(users, at % MIX, at % OWNERS, at / whole)).collect()
            }
            _ => cycles(2).map(|(cycle, i)| self.request(&users[1 + i], i, cycle)).collect(),
        }
    }

    /// The first 100 todos of the user with a million.
    pub(crate) fn list_of_100(users: &[User]) -> Option<Request> {
        let request = Self::List.request(users.first()?, 0, 0);
        Some(Request { path: request.path.replace("limit=50", "limit=100"), ..request })
    }

    /// The request of the `i`th owner.
    fn request(self, user: &User, i: usize, cycle: usize) -> Request {
        let todos = format!("/api/users/{}/todos", seed::user_id(user.number));
        let todo = format!("{todos}/{}", seed::todo_id(user.number, i * 7 % TODOS));
        let request = |method, path, body: Option<Value>| Request {
            method,
            path,
            token: user.token.clone(),
            body: body.map(|body| body.to_string()).unwrap_or_default(),
        };
        let title = format!("Prepare the meeting of week 2{cycle}");
        let priority = if cycle == 0 { "medium" } else { "high" };
        match self {
            Self::List | Self::ListMillion => request("GET", format!("{todos}?limit=50"), None),
            Self::Create => {
                let description = seed::DESCRIPTION;
                let body =
                    json!({"title": title, "description": description, "priority": priority});
                request("POST", todos, Some(body))
            }
            Self::Patch => {
                request("PATCH", todo, Some(json!({"title": title, "priority": priority})))
            }
            Self::Complete => {
                request("PATCH", todo + "/complete", Some(json!({"completed": cycle == 0})))
            }
            Self::Delete => request("DELETE", format!("{todos}/{}", seed::spare_id()), None),
            Self::Login => {
                let body = json!({"email": seed::email(user.number), "password": PASSWORD});
                let request = request("POST", "/api/auth/login".into(), Some(body));
                Request { token: String::new(), ..request }
            }
            Self::Health | Self::Get | Self::Mixed => request("GET", todo, None),
        }
    }
}

/// The request at a position of the mix's cycle.
fn mixed(users: &[User], position: usize, i: usize, cycle: usize) -> Request {
    let case = match position {
        4 => Case::Create,
        9 => Case::Patch,
        14 => Case::Complete,
        position if position % 2 == 0 => Case::Get,
        _ => Case::List,
    };
    case.request(&users[1 + i], i, cycle)
}

impl Request {
    /// Number of requests sampled for the average response size.
    pub(crate) const SAMPLE: usize = MIX;

    /// The same request for the spare todo of this number.
    pub(crate) fn of_spare(&self, number: u64) -> Self {
        Self { path: self.path.replace(SPARE, &format!("{number:012}")), ..self.clone() }
    }

    /// A line of the file that wrk's script reads.
    pub(crate) fn line(&self) -> String {
        format!("{}\t{}\t{}\t{}\n", self.method, self.path, self.token, self.body)
    }
}

impl Statement {
    /// pgbench's script: the same rows in the same order as the requests, so that no two
    /// connections wait for the same row.
    pub(crate) fn script(self) -> String {
        let statement = match self {
            Self::Select => format!("SELECT {COLUMNS} FROM todos WHERE id = {TODO};"),
            Self::Page => page(),
            Self::Insert => format!(
                "INSERT INTO todos (id, user_id, title, title_key, description, priority, \
                 completed, created_at, updated_at) VALUES (\
                 ('00000000-0000-7004-' || lpad(:run, 4, '0') || '-' || lpad(:serial, 12, '0'))\
                 ::uuid, {USER}, 'Prepare the meeting of week 20', \
                 'prepare the meeting of week 20', '{}', 2, FALSE, now(), now());",
                seed::DESCRIPTION
            ),
            Self::Update => format!(
                "UPDATE todos SET title = 'Prepare the meeting of week 2' || :cycle, \
                 title_key = 'prepare the meeting of week 2' || :cycle, priority = 2 + :cycle, \
                 updated_at = now() WHERE id = {TODO};"
            ),
        };
        format!(
            "\\set i :i + 1\n\
             \\set owner (:client_id + :i * :clients) % {OWNERS}\n\
             \\set user 1 + :owner * {STEP}\n\
             \\set todo :user * 10000 + :owner * 7 % {TODOS}\n\
             \\set cycle (:i * :clients / {OWNERS}) % 2\n\
             \\set serial :i * 1000 + :client_id\n\
             {statement}\n"
        )
    }
}

const COLUMNS: &str =
    "id, user_id, title, description, priority, completed, created_at, updated_at, completed_at";
const USER: &str = "('00000000-0000-7000-8000-' || lpad(:user, 12, '0'))::uuid";
const TODO: &str = "('00000000-0000-7001-8000-' || lpad(:todo, 12, '0'))::uuid";

/// Selects the first 50 of a user's todos, like the servers.
fn page() -> String {
    let ordered = "ORDER BY created_at DESC, id DESC LIMIT 50";
    let rows = |completed: &str| {
        format!(
            "SELECT {COLUMNS} FROM todos WHERE user_id = {USER} AND completed = {completed} {ordered}"
        )
    };
    format!(
        "SELECT {COLUMNS}, (SELECT pending + completed FROM todo_counts WHERE user_id = {USER}) \
         FROM (SELECT * FROM ({}) AS pending UNION ALL SELECT * FROM ({}) AS completed) AS page \
         {ordered};",
        rows("FALSE"),
        rows("TRUE")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn users() -> Vec<User> {
        let user = |number| User { number, token: "token".into() };
        (0..=u32::try_from(OWNERS).unwrap()).map(user).collect()
    }

    #[test]
    fn the_mix_is_80_to_20_and_reverts_its_changes() {
        let requests = Case::Mixed.requests(&users());
        let reads = requests.iter().filter(|request| request.method == "GET").count();
        assert_eq!(reads * 5, requests.len() * 4);
        let (first, second) = requests.split_at(requests.len() / 2);
        for (a, b) in first.iter().zip(second) {
            assert_eq!((&a.method, &a.path), (&b.method, &b.path));
            assert_eq!(a.body == b.body, a.body.is_empty());
        }
    }

    #[test]
    fn targets_are_in_order_and_match_the_selected_servers() {
        use ServerKind::{HyperSqlite, SalvoPostgres};
        let targets = Case::Patch.targets(&[SalvoPostgres, HyperSqlite]);
        assert_eq!(
            targets,
            [
                Target::BareHyper,
                Target::Server(HyperSqlite),
                Target::BareSalvo,
                Target::Server(SalvoPostgres),
                Target::Pgbench(Statement::Insert),
                Target::Pgbench(Statement::Update),
            ]
        );
        let targets = Case::Get.targets(&[HyperSqlite]);
        assert_eq!(targets, [Target::BareHyper, Target::Server(HyperSqlite)]);
    }
}
