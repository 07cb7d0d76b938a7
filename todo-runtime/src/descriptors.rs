//! The process's limit of open files.

use crate::{Settings, limits::OVER_CAPACITY_CONNECTIONS};

/// Descriptors besides client connections: database connections, 1000 at most, and a few files.
const OTHER_DESCRIPTORS: u64 = 1100;

/// Raises the soft limit of open files to what the connections and the database need, within the
/// hard limit. The usual soft limit, 1024, is low only for programs that use `select`.
pub(crate) fn raise_descriptor_limit(settings: &Settings) {
    let wanted = (settings.max_connections + OVER_CAPACITY_CONNECTIONS) as u64 + OTHER_DESCRIPTORS;
    match rlimit::increase_nofile_limit(wanted) {
        Ok(limit) if limit >= wanted => {}
        Ok(limit) => {
            tracing::warn!(limit, wanted, "the limit of open files is low: connections may wait");
        }
        Err(error) => tracing::warn!(%error, "cannot raise the limit of open files"),
    }
}
