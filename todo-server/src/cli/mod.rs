//! The command line: arguments and output of each command. The library does the work.

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
    ErrorChain,
    admin::{self, AdminError, InvalidRows, Migration, Progress},
    http,
};
use todo_runtime::{ServeError, Settings, block_on, exit_code};
use tokio::net::TcpStream;

/// Prints a line to standard output. A closed pipe, as after `head`, is not an error.
macro_rules! outln {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stdout(), $($text)*);
    }};
}

mod doctor;
mod tls;
mod user;

const AFTER_HELP: &str = "\
Settings are environment variables or lines of .env in the working directory; environment variables
take precedence. The most important ones:
  DATABASE_URL    sqlite://FILE, sqlite::memory: or postgres://… [default: sqlite://todo.db]
  SECRET_KEY      signs tokens, at least 32 bytes; required in production
  ENVIRONMENT     development, staging or production
  HOST, PORT      where to listen [default: 127.0.0.1, 8000]
  TLS_CERT, TLS_KEY  PEM files, to serve https

Examples:
  todo-server                                  serve on http://127.0.0.1:8000
  todo-server migrate --status                 show which migrations are applied
  todo-server import --from postgres://…       import the Python backend's database
  todo-server backup backup.db                 copy the SQLite file while it is in use
  todo-server openapi > openapi.json           write the OpenAPI document

Exit codes: 0 ok, 1 failed, 2 usage";

/// Accounts and todos over HTTP
#[derive(Debug, Parser)]
#[command(name = "todo-server", version, after_help = AFTER_HELP, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve until SIGTERM or SIGINT (the default)
    Serve,
    /// Migrate the schema of DATABASE_URL, show its migrations, or revert the last one
    #[command(after_help = "Uses MIGRATIONS_DATABASE_URL if it is set.\n\n\
        Exit codes: 0 ok, 1 failed or rejected, 2 usage")]
    Migrate(MigrateArgs),
    /// Copy all users, sessions and todos into an empty database, SQLite or PostgreSQL
    #[command(after_help = "All or nothing, and verified before the commit. Sessions stay \
        valid with the same SECRET_KEY. Stop the servers first: later writes are not copied.\n\n\
        Pass a URL with a password in COPY_FROM or COPY_TO: other users of the machine can read \
        the arguments.\n\n\
        Example:\n  todo-server copy --from sqlite://todo.db --to postgres://todo@db/todo\n\n\
        Exit codes: 0 copied, 1 failed and nothing was written, 2 usage")]
    Copy(CopyArgs),
    /// Import users and todos of the Python backend's database into the empty DATABASE_URL
    #[command(after_help = "Reads the tables users and todos as SQLAlchemy created them; times \
        without a zone are UTC. Passwords stay valid. Names and titles are trimmed, e-mails \
        converted to lower case. All or nothing: rows that break a rule are listed and stop the \
        import before anything is written. Stop the Python backend first: later writes are not \
        imported.\n\n\
        Pass a URL with a password in IMPORT_FROM: other users of the machine can read the \
        arguments. The target is MIGRATIONS_DATABASE_URL if it is set.\n\n\
        Example:\n  DATABASE_URL=postgres://todo@db/new todo-server import --from \
        postgresql+asyncpg://todo@db/old\n\n\
        Exit codes: 0 imported, 1 failed and nothing was written, 2 usage")]
    Import(ImportArgs),
    /// List accounts, delete one, or reset a password; also beside a running server
    #[command(
        subcommand,
        after_help = "Uses MIGRATIONS_DATABASE_URL if it is set.\n\n\
        Examples:\n  todo-server user list\n  todo-server user delete ada@example.com\n  \
        todo-server user reset-password ada@example.com\n\n\
        Exit codes: 0 ok, 1 failed or rejected, 2 usage"
    )]
    User(user::UserCommand),
    /// Write a verified copy of the SQLite file to FILE while it is in use
    #[command(
        after_help = "Servers may read and write meanwhile: the copy is a consistent snapshot. Its \
        integrity and its numbers of rows are checked before the file gets its name, and only its \
        owner can read it. For PostgreSQL, use pg_dump.\n\n\
        Restore it with the servers stopped, as docs/deployment.md describes.\n\n\
        Example:\n  todo-server backup /var/backups/todo.db\n\n\
        Exit codes: 0 backed up, 1 failed and nothing was written, 2 usage"
    )]
    Backup(BackupArgs),
    /// Make all positions in the logs of changes invalid; after a backup was restored
    #[command(
        name = "new-epoch",
        after_help = "A restored database gives out numbers of changes again that clients have \
        seen with other changes. With a new epoch the clients' positions are invalid, and they \
        read their lists again. Nothing else changes. Uses MIGRATIONS_DATABASE_URL if it is \
        set.\n\n\
        Exit codes: 0 ok, 1 failed, 2 usage"
    )]
    NewEpoch,
    /// Show the effective settings, without secrets, and check database, certificate and secret
    #[command(
        after_help = "One line for each check, beginning with ok, warn or FAIL: the database \
        and its migrations, whether a pooler mixes up statements, the certificate, its key and its \
        dates, the secret, and the rules of production. Changes nothing.\n\n\
        Exit codes: 0 no check failed, 1 a check failed, 2 usage"
    )]
    Doctor,
    /// Request /health from the server at HOST and PORT; for containers without curl
    #[command(after_help = "Waits for at most 3 seconds. For a HOST of 0.0.0.0 or ::, uses the \
        loopback. With TLS_CERT, uses https and requires exactly that certificate.\n\n\
        Exit codes: 0 healthy, 1 unhealthy, 2 usage")]
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
    /// Revert the last applied migration; rejected if rows could be lost
    #[arg(long)]
    revert: bool,
    /// With --revert: revert even if rows are lost
    #[arg(long, requires = "revert")]
    yes: bool,
}

#[derive(Debug, Args)]
struct CopyArgs {
    /// The database to read; it is not changed
    #[arg(long, value_name = "URL", env = "COPY_FROM", hide_env_values = true)]
    from: String,
    /// The database to write; it is migrated first and must have no rows
    #[arg(long, value_name = "URL", env = "COPY_TO", hide_env_values = true)]
    to: String,
}

#[derive(Debug, Args)]
struct ImportArgs {
    /// The database to read; it is not changed
    #[arg(long, value_name = "URL", env = "IMPORT_FROM", hide_env_values = true)]
    from: String,
    /// Skip rows that break a rule, and import the rest
    #[arg(long)]
    skip_invalid: bool,
}

#[derive(Debug, Args)]
struct BackupArgs {
    /// The file to write
    file: PathBuf,
    /// Replace the file if it exists
    #[arg(long)]
    force: bool,
}

/// Parses the arguments and runs the command.
pub(crate) fn main() -> ExitCode {
    let cli = match parse_arguments() {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    let command = cli.command.unwrap_or(Command::Serve);
    if let Command::Migrate(_) | Command::Copy(_) | Command::Import(_) | Command::Backup(_) =
        command
    {
        todo_runtime::log_warnings();
    }
    match command {
        Command::Serve => todo_runtime::run_server(|settings, listener| async {
            let signals = todo_runtime::signals()?;
            todo_server::serve(settings, listener, signals).await
        }),
        Command::Migrate(args) => {
            with_settings(|settings| exit_code(block_on(migrate(&settings, &args))))
        }
        Command::Copy(args) => exit_code(block_on(copy(&args))),
        Command::Import(args) => {
            with_settings(|settings| exit_code(block_on(import(&settings, &args))))
        }
        Command::User(command) => {
            with_settings(|settings| exit_code(block_on(user::user(&settings, &command))))
        }
        Command::Backup(args) => {
            with_settings(|settings| exit_code(block_on(backup(&settings, &args))))
        }
        Command::NewEpoch => with_settings(|settings| exit_code(block_on(new_epoch(&settings)))),
        // Runs every few seconds: the warnings of `serve` are not repeated.
        Command::Healthcheck => {
            exit_code(Settings::load().and_then(|settings| block_on(healthcheck(&settings))))
        }
        Command::Doctor => match Settings::load() {
            Err(error) => {
                outln!("FAIL settings: {}", ErrorChain(&error));
                ExitCode::FAILURE
            }
            Ok(settings) => {
                let checked = async { Ok::<_, io::Error>(doctor::doctor(&settings).await) };
                match block_on(checked) {
                    Ok(true) => ExitCode::SUCCESS,
                    Ok(false) => ExitCode::FAILURE,
                    Err(error) => exit_code(Err(error)),
                }
            }
        },
        Command::Openapi => with_settings(|settings| {
            let document = http::openapi_document(&settings.api_options());
            match writeln!(io::stdout(), "{document}") {
                // A truncated document is an error.
                Err(error) => exit_code(Err(error)),
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
    Settings::load().map_or_else(|error| exit_code(Err(error)), work)
}

/// Parses the arguments. An error message hides an argument that is neither an option nor a plain
/// word: it may be a URL with a password.
fn parse_arguments() -> Result<Cli, clap::Error> {
    Cli::try_parse().map_err(|mut error| {
        let is_plain = |text: &str| {
            text.len() <= 20 && text.bytes().all(|b| b.is_ascii_lowercase() || b == b'-')
        };
        // Errors of other kinds, such as a conflict, print only the names of options.
        let printing_kinds = [ErrorKind::UnknownArgument, ErrorKind::InvalidSubcommand];
        if !printing_kinds.contains(&error.kind()) {
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
    let Some(files) = settings.tls() else { return todo_runtime::healthcheck(settings).await };
    let address = todo_runtime::health_address(settings);
    let response = async {
        let stream = TcpStream::connect(address).await?;
        todo_runtime::check_health(tls::connect(stream, address.ip(), &files).await?).await
    };
    todo_runtime::with_health_timeout(address, response).await
}

/// Database URL for commands: bypasses a pooler, if MIGRATIONS_DATABASE_URL is set.
fn direct_url(settings: &Settings) -> &str {
    settings.migrations_database_url.as_ref().unwrap_or(&settings.database_url).as_str()
}

async fn migrate(settings: &Settings, args: &MigrateArgs) -> Result<(), AdminError> {
    let url = direct_url(settings);
    if args.status {
        for migration in admin::migrations(url).await? {
            print_migration(if migration.applied { "applied" } else { "pending" }, &migration);
        }
    } else if args.revert {
        let report = admin::revert(url, args.yes).await?;
        let [users, sessions, todos] = report.rows;
        match &report.reverted {
            None => outln!("no migration is applied"),
            Some(migration) => {
                print_migration("reverted", migration);
                outln!("before: {users} users, {sessions} sessions, {todos} todos");
            }
        }
    } else {
        let migrated = admin::migrate(url).await?;
        migrated.applied.iter().for_each(|migration| print_migration("applied", migration));
        if migrated.applied.is_empty() {
            outln!("up to date");
        }
    }
    Ok(())
}

async fn copy(args: &CopyArgs) -> Result<(), AdminError> {
    let bar = ProgressBar::new(0);
    let report = admin::copy(&args.from, &args.to, |progress| show(&bar, progress)).await;
    bar.finish_and_clear();
    let report = report?;
    let [users, sessions, todos] = report.rows;
    outln!("copied {users} users, {sessions} sessions and {todos} todos");
    outln!("verified: sha256 {}", report.checksum);
    Ok(())
}

async fn import(settings: &Settings, args: &ImportArgs) -> Result<(), AdminError> {
    let bar = ProgressBar::new(0);
    let to = direct_url(settings);
    let on_batch = |progress| show(&bar, progress);
    let report = admin::import(&args.from, to, args.skip_invalid, on_batch).await;
    bar.finish_and_clear();
    if let Err(AdminError::Invalid(invalid)) = &report {
        print_invalid_rows(invalid);
    }
    let report = report?;
    print_invalid_rows(&report.skipped);
    outln!("imported {} users and {} todos", report.users, report.todos);
    if report.skipped.count > 0 {
        outln!("skipped {} rows", report.skipped.count);
    }
    Ok(())
}

async fn backup(settings: &Settings, args: &BackupArgs) -> Result<(), AdminError> {
    let bar = ProgressBar::new(0);
    let shown = bar.clone();
    let on_pages = move |progress| show(&shown, progress);
    let mut signals = todo_runtime::signals()?;
    let report = tokio::select! {
        report = admin::backup(direct_url(settings), &args.file, args.force, on_pages) => report,
        () = signals.stop() => {
            Err(AdminError::Refused("stopped by a signal: no file was written".into()))
        }
    };
    bar.finish_and_clear();
    let report = report?;
    let [users, sessions, todos] = report.rows;
    outln!("backed up {users} users, {sessions} sessions and {todos} todos");
    outln!("verified: integrity check ok, {} bytes", report.bytes);
    Ok(())
}

async fn new_epoch(settings: &Settings) -> Result<(), AdminError> {
    let epoch = admin::new_epoch(direct_url(settings)).await?;
    outln!("new epoch: {epoch}");
    Ok(())
}

fn print_invalid_rows(invalid: &InvalidRows) {
    let mut stderr = io::stderr().lock();
    // As with `outln!`, a closed pipe is not an error.
    for row in &invalid.first {
        let _ = writeln!(stderr, "{row}");
    }
    let more = invalid.count - invalid.first.len() as u64;
    if more > 0 {
        let _ = writeln!(stderr, "and {more} more");
    }
}

/// Updates the progress bar, which is hidden unless standard error is a terminal.
fn show(bar: &ProgressBar, progress: Progress) {
    bar.set_length(progress.total);
    bar.set_position(progress.done);
}

fn print_migration(what: &str, migration: &Migration) {
    outln!("{what} {} {}", migration.version, migration.description);
}
