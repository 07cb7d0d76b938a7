//! The account commands: `todo-server user …`.

use std::io::{self, Write};

use clap::Subcommand;
use todo_core::admin::{self, Account, AdminError};
use todo_runtime::Settings;

use super::direct_url;

#[derive(Debug, Subcommand)]
pub(crate) enum UserCommand {
    /// List all accounts, one per line: e-mail, name, id, creation time, sessions, todos
    #[command(
        after_help = "The columns are separated by tabs, and control characters are escaped."
    )]
    List,
    /// Delete an account with its sessions and todos; its tokens are rejected at once
    #[command(after_help = "Cannot be undone. Prompts for confirmation, unless --yes is given.")]
    Delete {
        /// E-mail address of the account, in any spelling
        email: String,
        /// Skip the confirmation prompt
        #[arg(long)]
        yes: bool,
    },
    /// Set a new, generated password for an account, print it once and end the account's sessions
    ResetPassword {
        /// E-mail address of the account, in any spelling
        email: String,
    },
}

pub(crate) async fn user(settings: &Settings, command: &UserCommand) -> Result<(), AdminError> {
    let url = direct_url(settings);
    match command {
        UserCommand::List => list(url).await,
        UserCommand::Delete { email, yes } => {
            let account = admin::find_user(url, email).await?;
            if !yes && !confirm(&account)? {
                return Err(AdminError::Refused("Nothing was deleted.".into()));
            }
            let Account { sessions, todos, .. } = admin::delete_user(url, account.id).await?;
            let email = printable(&account.email);
            outln!("Deleted {email} with {sessions} sessions and {todos} todos.");
            Ok(())
        }
        UserCommand::ResetPassword { email } => {
            let account = admin::find_user(url, email).await?;
            let password = admin::reset_password(url, account.id).await?;
            // The password is lost if this write fails, so the error is returned.
            writeln!(io::stdout(), "{password}")?;
            eprintln!(
                "This is the new password of {}. It is shown only once. All sessions have ended.",
                printable(&account.email)
            );
            Ok(())
        }
    }
}

async fn list(url: &str) -> Result<(), AdminError> {
    let mut outcome = Ok(());
    let on_page = |page: &[Account]| {
        let mut out = io::stdout().lock();
        outcome = page.iter().try_for_each(|account| {
            let Account { id, email, name, created_at, sessions, todos, .. } = account;
            let email = printable(email);
            let name = printable(name);
            let created_at = created_at.format("%Y-%m-%dT%H:%M:%SZ");
            writeln!(out, "{email}\t{name}\t{id}\t{created_at}\t{sessions}\t{todos}")
        });
        outcome.is_ok()
    };
    admin::users(url, on_page).await?;
    match outcome {
        // The reader has closed the pipe, as `head` does.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        outcome => Ok(outcome?),
    }
}

/// Prompts for confirmation on standard error; true only for "yes".
fn confirm(account: &Account) -> io::Result<bool> {
    let Account { sessions, todos, .. } = account;
    let email = printable(&account.email);
    eprint!("Delete {email} with {sessions} sessions and {todos} todos permanently? [yes/no] ");
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    Ok(answer.trim().eq_ignore_ascii_case("yes"))
}

/// Escapes user text for a terminal: control characters and those that change the text direction.
fn printable(text: &str) -> String {
    let is_escaped = |c: char| {
        c.is_control()
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let mut printed = String::with_capacity(text.len());
    for c in text.chars() {
        if is_escaped(c) {
            printed.extend(c.escape_unicode());
        } else {
            printed.push(c);
        }
    }
    printed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminal_control_characters_are_escaped() {
        assert_eq!(printable("Zoë \u{1b}[2J\ta\u{202e}b"), "Zoë \\u{1b}[2J\\u{9}a\\u{202e}b");
    }
}
