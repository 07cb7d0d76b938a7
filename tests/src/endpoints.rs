//! The routes of the contract, for cases that must cover all of them.

use todo_core::http::{Endpoint, endpoints};

/// The prefix of the API's routes in every suite.
const PREFIX: &str = "/api";

/// The endpoint of a method and a path, whose query is ignored.
///
/// # Panics
/// If there is none.
#[must_use]
pub fn endpoint(method: &str, path: &str) -> &'static Endpoint {
    let path = path.split_once('?').map_or(path, |(path, _)| path);
    let is_it = |endpoint: &&Endpoint| {
        let pattern = endpoint.full_path(PREFIX);
        let is_parameter =
            |(pattern, part): (&str, &str)| pattern.starts_with('{') || pattern == part;
        endpoint.method() == method
            && pattern.split('/').count() == path.split('/').count()
            && pattern.split('/').zip(path.split('/')).all(is_parameter)
    };
    endpoints().find(is_it).unwrap_or_else(|| panic!("no endpoint {method} {path}"))
}

/// The operation ids of the endpoints that are selected but not in `covered`.
pub fn uncovered<'a>(
    covered: impl IntoIterator<Item = &'a Endpoint>,
    selects: impl Fn(&Endpoint) -> bool,
) -> Vec<&'static str> {
    let covered: Vec<_> = covered.into_iter().map(Endpoint::operation_id).collect();
    let selected = endpoints().filter(|endpoint| selects(endpoint)).map(Endpoint::operation_id);
    selected.filter(|id| !covered.contains(id)).collect()
}
