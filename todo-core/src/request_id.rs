//! The id of the current request, as a task-local for log events of lower layers. Not a span: to
//! create, enter and exit one per request takes longer than most responses.

use std::sync::Arc;

tokio::task_local! {
    static CURRENT: Arc<str>;
}

/// Runs `work` with this request id.
pub(crate) fn scope<F: Future>(id: Arc<str>, work: F) -> impl Future<Output = F::Output> {
    CURRENT.scope(id, work)
}

/// The id of the current request, if there is one.
pub(crate) fn current() -> Option<Arc<str>> {
    CURRENT.try_with(Arc::clone).ok()
}
