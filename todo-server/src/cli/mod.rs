//! The command line: what each command is told, and what it says. What it does is the library's.

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use indicatif::ProgressBar;
use todo_core::{
    http, server,
    settings::Settings,
    transfer::{self, Migration, TransferError},
};

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
        Example:\n  todo-server copy --from sqlite://todo.db --to postgres://todo@db/todo\n\n\
        Exit codes: 0 copied, 1 failed and nothing was written, 2 usage")]
    Copy(CopyArgs),
    /// Ask the server at HOST and PORT for /health; for containers without curl
    #[command(after_help = "Waits for at most 3 seconds. A HOST of 0.0.0.0 or :: is asked on the \
        loopback.\n\nExit codes: 0 healthy, 1 not, 2 usage")]
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
    #[arg(long, value_name = "URL")]
    from: String,
    /// The database to write; it is migrated first and must have no rows
    #[arg(long, value_name = "URL")]
    to: String,
}

/// Reads the arguments and does what they say.
pub(crate) fn main() -> ExitCode {
    match Cli::parse().command.unwrap_or(Command::Serve) {
        Command::Serve => server::serve_to_the_end(|settings, listener| async {
            let signals = server::signals()?;
            todo_server::serve(settings, listener, signals).await
        }),
        Command::Migrate(args) => {
            with_settings(|settings| server::finish(server::block_on(migrate(&settings, &args))))
        }
        Command::Copy(args) => server::finish(server::block_on(copy(&args))),
        Command::Healthcheck => with_settings(|settings| {
            server::finish(server::block_on(server::healthcheck(&settings)))
        }),
        Command::Openapi => with_settings(|settings| {
            println!("{}", http::openapi_document(&settings.api_options()));
            ExitCode::SUCCESS
        }),
    }
}

fn with_settings(work: impl FnOnce(Settings) -> ExitCode) -> ExitCode {
    server::settings().map_or_else(|error| server::finish(Err(error)), work)
}

async fn migrate(settings: &Settings, args: &MigrateArgs) -> Result<(), TransferError> {
    let url = settings.migrations_database_url.as_ref().unwrap_or(&settings.database_url).as_str();
    if args.status {
        for migration in transfer::migrations(url).await? {
            say(if migration.applied { "applied" } else { "pending" }, &migration);
        }
    } else if args.revert {
        let revert = transfer::revert(url, args.yes).await?;
        let [users, sessions, todos] = revert.rows;
        match &revert.reverted {
            None => println!("no migration is applied"),
            Some(migration) => {
                say("reverted", migration);
                println!("before: {users} users, {sessions} sessions, {todos} todos");
            }
        }
    } else {
        let change = transfer::migrate(url).await?;
        change.applied.iter().for_each(|migration| say("applied", migration));
        if change.applied.is_empty() {
            println!("up to date");
        }
    }
    Ok(())
}

async fn copy(args: &CopyArgs) -> Result<(), TransferError> {
    // Hidden by itself where standard error is no terminal.
    let bar = ProgressBar::new(0);
    let copied = transfer::copy(&args.from, &args.to, |progress| {
        bar.set_length(progress.total);
        bar.set_position(progress.done);
    })
    .await;
    bar.finish_and_clear();
    let copied = copied?;
    let [users, sessions, todos] = copied.rows;
    println!("copied {users} users, {sessions} sessions and {todos} todos");
    println!("verified: sha256 {}", copied.checksum);
    Ok(())
}

fn say(what: &str, migration: &Migration) {
    println!("{what} {} {}", migration.version, migration.description);
}
