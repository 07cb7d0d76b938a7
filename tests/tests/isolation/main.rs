//! The effect of one client's load on others. These tests compare times, so they run one at a
//! time: each holds [`ALONE`].

mod abandoned;
mod bulky;
mod cancellation;
mod fairness;

/// Held by each test for as long as it runs.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
