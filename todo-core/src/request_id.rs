//! The id of the request that something is done for, so that what is logged far below it has it too.
//! Not a span: one that is made, entered and left for each request takes longer than most answers.

use std::sync::Arc;

tokio::task_local! {
    static CURRENT: Arc<str>;
}

/// Does `work` for the request of this id.
pub(crate) fn scope<F: Future>(id: Arc<str>, work: F) -> impl Future<Output = F::Output> {
    CURRENT.scope(id, work)
}

/// The id of the request that this is done for, if it is for one.
pub(crate) fn current() -> Option<Arc<str>> {
    CURRENT.try_with(Arc::clone).ok()
}
