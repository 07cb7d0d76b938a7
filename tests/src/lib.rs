//! The harness of the black-box suites.
//!
//! A case is an async function of a [`Target`] (a server and a database). [`on_every_target!`] runs
//! it on all four. It starts an [`App`], a server on an ephemeral port with its own database, and
//! uses it through a [`Client`] (anonymous) or an [`Actor`] (a signed-up user), over TCP and by the
//! public contract alone.
//!
//! [`postgres`] finds or starts PostgreSQL; [`lease`] shares it between test processes and stops it
//! after the last one.
#![forbid(unsafe_code)]

mod app;
mod client;
mod clock;
mod database;
mod endpoints;
mod events;
mod forwarder;
pub mod lease;
mod mail;
pub mod peers;
pub mod postgres;
mod process;
mod response;
mod target;
mod tools;
mod websocket;

pub use app::{App, SECRET, SECRET_SETTING};
pub use client::{Actor, Client, at_once, eventually, raw, unique_email};
pub use clock::fast_clock;
pub use database::{clone_the_only_todo, count_rows, execute_sql};
pub use endpoints::{endpoint, uncovered};
pub use events::{Event, EventStream};
pub use forwarder::Forwarder;
pub use mail::{MAIL_SETTINGS, Mail, Mailbox, SmtpServer};
pub use process::{
    PROGRAMS, Process, STARTING, STOPPING, built, command, empty_dir, startup_error,
};
pub use response::TestResponse;
pub use target::{Database, Server, Target};
pub use tools::tool;
pub use websocket::WebSocket;
