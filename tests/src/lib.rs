//! The harness of the black-box suites: what a test case may hold in its hands.
//!
//! A case is one async function of a [`Cell`] (a server and a database). [`on_every_cell!`] runs it
//! on all four. It starts an [`App`], which is a server on an ephemeral port with a database of its
//! own, and acts on it through a [`Client`] (nobody) or an [`Actor`] (a user who signed up), over
//! TCP and by the public contract alone.
//!
//! Where PostgreSQL comes from is decided in [`postgres`]; how one is shared by many test
//! processes and never outlives them, in [`lease`].
#![forbid(unsafe_code)]

mod answer;
mod app;
mod cell;
mod client;
mod database;
mod forwarder;
pub mod lease;
pub mod postgres;
mod process;
mod tools;

pub use answer::Answer;
pub use app::App;
pub use cell::{Cell, Database, Server};
pub use client::{Actor, Client, at_once, comes_true, fresh_email, raw};
pub use database::clone_the_only_todo;
pub use forwarder::Forwarder;
pub use process::{PROGRAMS, Process, STARTING, STOPPING, built, command, refusal};
pub use tools::tool;
