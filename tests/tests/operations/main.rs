//! The programs as an operator runs them: commands, settings, databases, migrations, backups.

mod accounts;
mod backup;
mod changes;
mod cli;
mod copied_reminders;
mod copy;
mod identity;
mod import;
mod mail;
mod migrations;
mod pooler;
mod postgres_environments;
mod postgres_source;
mod postgres_tls;
mod process;
mod production;
mod secrets;
