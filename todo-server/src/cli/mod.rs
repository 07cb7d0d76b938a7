//! The command line: what each command is told, and what it says. What it does is the library's.

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use clap::{
    Args, Parser, Subcommand,
    error::{ContextKind, ContextValue, ErrorKind},
};
use indicatif::ProgressBar;
use todo_core::{
    http,
    server::{self, ServeError},
    settings::Settings,
    transfer::{self, BadRows, Migration, Progress, TransferError},
};
use tokio::net::TcpStream;

/// A line for whoever reads; that nobody does any more, `head` for instance, changes no outcome.
macro_rules! say {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stdout(), $($text)*);
    }};
}

mod doctor;
mod tls;
mod user;

const AFTER: &str = "\
Settings are environment variables or lines of .env in the working directory; the environment wins.
The ones that matter most:
  DATABASE_URL    sqlite://FILE, sqlite::memory: or postgres://… [default: sqlite://todo.db]
  SECRET_KEY      signs tokens, at least 32 bytes; required in production
  ENVIRONMENT     development, staging or production
  HOST, PORT      where to listen [default: 127.0.0.1, 8000]
  TLS_CERT, TLS_KEY  PEM files, to serve https

Examples:
  todo-server                                  serve on http://127.0.0.1:8000
  todo-server migrate --status                 show which migrations are applied
  todo-server import --from postgres://…       take over the Python backend's database
  todo-server backup backup.db                 copy the SQLite file while it is used
  todo-server openapi > openapi.json           write the API's description

Exit codes: 0 ok, 1 failed, 2 usage";

/// Accounts and todos over HTTP
#[derive(Debug, Parser)]
#[command(name = "todo-server", version, after_help = AFTER, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve until told to stop by SIGTERM or SIGINT (the default)
    Serve,
    /// Bring the schema of DATABASE_URL up to date, show it, or take its last step back
    #[command(after_help = "Uses MIGRATIONS_DATABASE_URL if it is set.\n\n\
        Exit codes: 0 ok, 1 failed or refused, 2 usage")]
    Migrate(MigrateArgs),
    /// Copy all users, sessions and todos into an empty database, of either kind
    #[command(after_help = "All or nothing, and verified before it is kept. Sessions stay good \
        with the same SECRET_KEY. Stop the servers first: what they write later is not copied.\n\n\
        An address with a password belongs into COPY_FROM or COPY_TO: others on the machine see \
        the arguments.\n\n\
        Example:\n  todo-server copy --from sqlite://todo.db --to postgres://todo@db/todo\n\n\
        Exit codes: 0 copied, 1 failed and nothing was written, 2 usage")]
    Copy(CopyArgs),
    /// Take over users and todos of the Python backend's database into the empty DATABASE_URL
    #[command(
        after_help = "Reads the tables users and todos as SQLAlchemy made them; times without \
        a zone are UTC. Passwords stay good. Names and titles are trimmed, e-mails folded to lower \
        case. All or nothing: a row that breaks a rule is named and stops the import before anything \
        is written. Stop the Python backend first: what it writes later is not imported.\n\n\
        An address with a password belongs into IMPORT_FROM: others on the machine see the \
        arguments. The target is MIGRATIONS_DATABASE_URL if it is set.\n\n\
        Example:\n  DATABASE_URL=postgres://todo@db/new todo-server import --from \
        postgresql+asyncpg://todo@db/old\n\n\
        Exit codes: 0 imported, 1 failed and nothing was written, 2 usage"
    )]
    Import(ImportArgs),
    /// List accounts, delete one, or give one a new password; beside a running server too
    #[command(
        subcommand,
        after_help = "Uses MIGRATIONS_DATABASE_URL if it is set.\n\n\
        Examples:\n  todo-server user list\n  todo-server user delete ada@example.com\n  \
        todo-server user reset-password ada@example.com\n\n\
        Exit codes: 0 ok, 1 failed or refused, 2 usage"
    )]
    User(user::UserCommand),
    /// Write a checked copy of the SQLite file in use to FILE
    #[command(
        after_help = "While servers read and write: the copy is of one moment. It passes SQLite's \
        integrity check and has as many rows as the database before it gets its name, and only its \
        owner can read it. PostgreSQL has pg_dump for that.\n\n\
        Restore it with the servers stopped; docs/deployment.md says how.\n\n\
        Example:\n  todo-server backup /var/backups/todo.db\n\n\
        Exit codes: 0 backed up, 1 failed and nothing was written, 2 usage"
    )]
    Backup(BackupArgs),
    /// Show the settings as understood, without secrets, and check what they lead to
    #[command(
        after_help = "One line for each check, beginning with ok, warn or FAIL: the database \
        and its migrations, whether a pooler mixes statements up, the certificate, its key and its \
        dates, the secret, and the rules of production. Changes nothing.\n\n\
        Exit codes: 0 no check failed, 1 one did, 2 usage"
    )]
    Doctor,
    /// Ask the server at HOST and PORT for /health; for containers without curl
    #[command(after_help = "Waits for at most 3 seconds. A HOST of 0.0.0.0 or :: is asked on the \
        loopback. With TLS_CERT it asks over https, and only a server with exactly that certificate \
        is healthy.\n\nExit codes: 0 healthy, 1 not, 2 usage")]
    Healthcheck,
    /// Print the OpenAPI document; needs no database
    #[command(after_help = "Follows API_V1_PREFIX and PROJECT_NAME.")]
    Openapi,
}

#[derive(Debug, Args)]
struct MigrateArgs {
    /// Only list the migrations, applied and pending; changes nothing
    #[arg(long, conflicts_with = "revert")]
    status: bool,
    /// Take the last applied migration back; refused if rows would be lost
    #[arg(long)]
    revert: bool,
    /// With --revert: take it back even if that loses rows
    #[arg(long, requires = "revert")]
    yes: bool,
}

#[derive(Debug, Args)]
struct CopyArgs {
    /// The database to read; nothing in it changes
    #[arg(long, value_name = "URL", env = "COPY_FROM", hide_env_values = true)]
    from: String,
    /// The database to write; it is migrated first and must have no rows
    #[arg(long, value_name = "URL", env = "COPY_TO", hide_env_values = true)]
    to: String,
}

#[derive(Debug, Args)]
struct ImportArgs {
    /// The database to read; nothing in it changes
    #[arg(long, value_name = "URL", env = "IMPORT_FROM", hide_env_values = true)]
    from: String,
    /// Leave rows that break a rule out, and import the rest
    #[arg(long)]
    skip_invalid: bool,
}

#[derive(Debug, Args)]
struct BackupArgs {
    /// The file to write
    file: PathBuf,
    /// Replace the file if it is there
    #[arg(long)]
    force: bool,
}

/// Reads the arguments and does what they say.
pub(crate) fn main() -> ExitCode {
    let cli = match parsed() {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    let command = cli.command.unwrap_or(Command::Serve);
    if let Command::Migrate(_) | Command::Copy(_) | Command::Import(_) | Command::Backup(_) =
        command
    {
        server::log_warnings();
    }
    match command {
        Command::Serve => server::serve_to_the_end(|settings, listener| async {
            let signals = server::signals()?;
            todo_server::serve(settings, listener, signals).await
        }),
        Command::Migrate(args) => {
            with_settings(|settings| server::finish(server::block_on(migrate(&settings, &args))))
        }
        Command::Copy(args) => server::finish(server::block_on(copy(&args))),
        Command::Import(args) => {
            with_settings(|settings| server::finish(server::block_on(import(&settings, &args))))
        }
        Command::User(command) => with_settings(|settings| {
            server::finish(server::block_on(user::user(&settings, &command)))
        }),
        Command::Backup(args) => {
            with_settings(|settings| server::finish(server::block_on(backup(&settings, &args))))
        }
        // Its caller asks every few seconds: what `serve` warns of is not repeated.
        Command::Healthcheck => server::finish(
            server::settings().and_then(|settings| server::block_on(healthcheck(&settings))),
        ),
        Command::Doctor => match server::settings() {
            Err(error) => {
                say!("FAIL settings: {error}");
                ExitCode::FAILURE
            }
            Ok(settings) => {
                let checked = async { Ok::<_, io::Error>(doctor::doctor(&settings).await) };
                match server::block_on(checked) {
                    Ok(true) => ExitCode::SUCCESS,
                    Ok(false) => ExitCode::FAILURE,
                    Err(error) => server::finish(Err(error)),
                }
            }
        },
        Command::Openapi => with_settings(|settings| {
            let document = http::openapi_document(&settings.api_options());
            match writeln!(io::stdout(), "{document}") {
                // Half a document is none.
                Err(error) => server::finish(Err(error)),
                Ok(()) => ExitCode::SUCCESS,
            }
        }),
    }
}

fn with_settings(work: impl FnOnce(Settings) -> ExitCode) -> ExitCode {
    let work = |settings: Settings| {
        settings.warnings().iter().for_each(|warning| eprintln!("warning: {warning}"));
        work(settings)
    };
    server::settings().map_or_else(|error| server::finish(Err(error)), work)
}

/// The arguments, or what is wrong with them. An argument that is neither an option nor a word is not
/// repeated: it may be an address with a password.
fn parsed() -> Result<Cli, clap::Error> {
    Cli::try_parse().map_err(|mut error| {
        let is_plain = |text: &str| {
            text.len() <= 20 && text.bytes().all(|b| b.is_ascii_lowercase() || b == b'-')
        };
        // A conflict names options by their usage.
        let repeats = [ErrorKind::UnknownArgument, ErrorKind::InvalidSubcommand];
        if !repeats.contains(&error.kind()) {
            return error;
        }
        for kind in [ContextKind::InvalidArg, ContextKind::InvalidSubcommand] {
            if let Some(ContextValue::String(text)) = error.get(kind)
                && !is_plain(text)
            {
                error.insert(kind, ContextValue::String("(hidden)".to_owned()));
                error.remove(ContextKind::Suggested);
            }
        }
        error
    })
}

async fn healthcheck(settings: &Settings) -> Result<(), ServeError> {
    let Some(files) = &settings.tls else { return server::healthcheck(settings).await };
    let address = server::health_address(settings);
    let asked = async {
        let stream = TcpStream::connect(address).await?;
        server::ask_health(tls::connect(stream, address.ip(), files).await?).await
    };
    server::health_in_time(address, asked).await
}

/// Where a command works on the whole database: past a pooler, if there is a way.
fn direct_url(settings: &Settings) -> &str {
    settings.migrations_database_url.as_ref().unwrap_or(&settings.database_url).as_str()
}

async fn migrate(settings: &Settings, args: &MigrateArgs) -> Result<(), TransferError> {
    let url = direct_url(settings);
    if args.status {
        for migration in transfer::migrations(url).await? {
            report(if migration.applied { "applied" } else { "pending" }, &migration);
        }
    } else if args.revert {
        let revert = transfer::revert(url, args.yes).await?;
        let [users, sessions, todos] = revert.rows;
        match &revert.reverted {
            None => say!("no migration is applied"),
            Some(migration) => {
                report("reverted", migration);
                say!("before: {users} users, {sessions} sessions, {todos} todos");
            }
        }
    } else {
        let change = transfer::migrate(url).await?;
        change.applied.iter().for_each(|migration| report("applied", migration));
        if change.applied.is_empty() {
            say!("up to date");
        }
    }
    Ok(())
}

async fn copy(args: &CopyArgs) -> Result<(), TransferError> {
    let bar = ProgressBar::new(0);
    let copied = transfer::copy(&args.from, &args.to, |progress| show(&bar, progress)).await;
    bar.finish_and_clear();
    let copied = copied?;
    let [users, sessions, todos] = copied.rows;
    say!("copied {users} users, {sessions} sessions and {todos} todos");
    say!("verified: sha256 {}", copied.checksum);
    Ok(())
}

async fn import(settings: &Settings, args: &ImportArgs) -> Result<(), TransferError> {
    let (bar, to) = (ProgressBar::new(0), direct_url(settings));
    let on_batch = |progress| show(&bar, progress);
    let imported = transfer::import(&args.from, to, args.skip_invalid, on_batch).await;
    bar.finish_and_clear();
    if let Err(TransferError::Invalid(bad)) = &imported {
        name(bad);
    }
    let imported = imported?;
    name(&imported.left_out);
    say!("imported {} users and {} todos", imported.users, imported.todos);
    if imported.left_out.count > 0 {
        say!("left out {} rows", imported.left_out.count);
    }
    Ok(())
}

async fn backup(settings: &Settings, args: &BackupArgs) -> Result<(), TransferError> {
    let bar = ProgressBar::new(0);
    let shown = bar.clone();
    let on_pages = move |progress| show(&shown, progress);
    let mut signals = server::signals()?;
    let copied = tokio::select! {
        copied = transfer::backup(direct_url(settings), &args.file, args.force, on_pages) => copied,
        () = signals.stop() => {
            Err(TransferError::Refused("ended by a signal: nothing is kept".into()))
        }
    };
    bar.finish_and_clear();
    let copied = copied?;
    let [users, sessions, todos] = copied.rows;
    say!("backed up {users} users, {sessions} sessions and {todos} todos");
    say!("verified: integrity check ok, {} bytes", copied.bytes);
    Ok(())
}

fn name(bad: &BadRows) {
    let mut stderr = io::stderr().lock();
    // As with `say`: that nobody reads it changes no outcome.
    for row in &bad.first {
        let _ = writeln!(stderr, "{row}");
    }
    let more = bad.count - bad.first.len() as u64;
    if more > 0 {
        let _ = writeln!(stderr, "and {more} more");
    }
}

/// The bar hides itself where standard error is no terminal.
fn show(bar: &ProgressBar, progress: Progress) {
    bar.set_length(progress.total);
    bar.set_position(progress.done);
}

fn report(what: &str, migration: &Migration) {
    say!("{what} {} {}", migration.version, migration.description);
}
