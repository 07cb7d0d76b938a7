//! The accounts as an operator handles them at the command line.

use std::io::{self, Write};

use clap::Subcommand;
use todo_core::{
    settings::Settings,
    transfer::{self, Account, TransferError},
};

use super::direct_url;

#[derive(Debug, Subcommand)]
pub(crate) enum UserCommand {
    /// List all accounts, one a line: address, name, id, when it was made, sessions, todos
    #[command(
        after_help = "The columns are separated by tabs, and control characters are escaped."
    )]
    List,
    /// Delete an account with its sessions and todos; its tokens are refused at once
    #[command(after_help = "It cannot be undone. It asks before, unless --yes is given.")]
    Delete {
        /// Its e-mail address, in any spelling
        email: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Give an account a new, generated password, print it once and end the account's sessions
    ResetPassword {
        /// Its e-mail address, in any spelling
        email: String,
    },
}

pub(crate) async fn user(settings: &Settings, command: &UserCommand) -> Result<(), TransferError> {
    let url = direct_url(settings);
    match command {
        UserCommand::List => list(url).await,
        UserCommand::Delete { email, yes } => {
            let account = transfer::find_user(url, email).await?;
            if !yes && !is_meant(&account)? {
                return Err(TransferError::Refused("Nothing was deleted.".into()));
            }
            let Account { sessions, todos, .. } = transfer::delete_user(url, account.id).await?;
            let email = printable(&account.email);
            say!("Deleted {email} with {sessions} sessions and {todos} todos.");
            Ok(())
        }
        UserCommand::ResetPassword { email } => {
            let account = transfer::find_user(url, email).await?;
            let password = transfer::reset_password(url, account.id).await?;
            // It is lost if it cannot be written, so that is told.
            writeln!(io::stdout(), "{password}")?;
            eprintln!(
                "This is the new password of {}. It is shown only now. All sessions have ended.",
                printable(&account.email)
            );
            Ok(())
        }
    }
}

async fn list(url: &str) -> Result<(), TransferError> {
    let mut outcome = Ok(());
    let on_page = |page: &[Account]| {
        let mut out = io::stdout().lock();
        outcome = page.iter().try_for_each(|account| {
            let Account { id, email, name, created_at, sessions, todos, .. } = account;
            let (email, name) = (printable(email), printable(name));
            let made = created_at.format("%Y-%m-%dT%H:%M:%SZ");
            writeln!(out, "{email}\t{name}\t{id}\t{made}\t{sessions}\t{todos}")
        });
        outcome.is_ok()
    };
    transfer::users(url, on_page).await?;
    match outcome {
        // As with `head`: enough was read.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        outcome => Ok(outcome?),
    }
}

/// Whether whoever is asked says yes.
fn is_meant(account: &Account) -> io::Result<bool> {
    let Account { sessions, todos, .. } = account;
    let email = printable(&account.email);
    eprint!("Delete {email} with {sessions} sessions and {todos} todos for good? [yes/no] ");
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    Ok(answer.trim().eq_ignore_ascii_case("yes"))
}

/// Text of a user's for a terminal: what would steer it, or turn its direction, is escaped.
fn printable(text: &str) -> String {
    let steers = |c: char| {
        c.is_control()
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let mut printed = String::with_capacity(text.len());
    for c in text.chars() {
        if steers(c) {
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
    fn what_steers_a_terminal_is_escaped() {
        assert_eq!(printable("Zoë \u{1b}[2J\ta\u{202e}b"), "Zoë \\u{1b}[2J\\u{9}a\\u{202e}b");
    }
}
