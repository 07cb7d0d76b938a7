//! The one table of routes. The matcher, the OpenAPI document, `Allow` and the label that metrics
//! and logs use all come from it.

use http::{HeaderValue, Method};

/// The operation of a route. Each has one handler, in `http::handlers`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Signup,
    Login,
    Logout,
    CurrentUser,
    CreateTodo,
    ListTodos,
    GetTodo,
    ReplaceTodo,
    PatchTodo,
    DeleteTodo,
    CompleteTodo,
    Health,
    Readiness,
    DatabaseHealth,
    Metrics,
    OpenApi,
    Index,
}

/// One route.
#[derive(Clone, Debug)]
pub(crate) struct Route {
    pub(crate) method: Method,
    /// Below the API's prefix if [`Route::is_api`], else from the root.
    pub(crate) path: &'static str,
    pub(crate) operation: Operation,
    /// Whether it requires a token.
    pub(crate) auth: bool,
    pub(crate) is_api: bool,
    pub(crate) summary: &'static str,
}

const fn api(
    method: Method,
    path: &'static str,
    operation: Operation,
    auth: bool,
    summary: &'static str,
) -> Route {
    Route { method, path, operation, auth, is_api: true, summary }
}

const fn root(path: &'static str, operation: Operation, summary: &'static str) -> Route {
    Route { method: Method::GET, path, operation, auth: false, is_api: false, summary }
}

const TODOS: &str = "/users/{user_id}/todos";
const TODO: &str = "/users/{user_id}/todos/{todo_id}";
const COMPLETE: &str = "/users/{user_id}/todos/{todo_id}/complete";

/// Every route, in the order of the OpenAPI document.
pub(crate) const ROUTES: [Route; 17] = [
    api(Method::POST, "/auth/signup", Operation::Signup, false, "Sign up"),
    api(Method::POST, "/auth/login", Operation::Login, false, "Log in"),
    api(Method::POST, "/auth/logout", Operation::Logout, true, "Log out"),
    api(Method::GET, "/auth/me", Operation::CurrentUser, true, "Get the current user"),
    api(Method::POST, TODOS, Operation::CreateTodo, true, "Create a todo"),
    api(Method::GET, TODOS, Operation::ListTodos, true, "List todos"),
    api(Method::GET, TODO, Operation::GetTodo, true, "Get a todo"),
    api(Method::PUT, TODO, Operation::ReplaceTodo, true, "Replace a todo"),
    api(Method::PATCH, TODO, Operation::PatchTodo, true, "Update a todo"),
    api(Method::DELETE, TODO, Operation::DeleteTodo, true, "Delete a todo"),
    api(Method::PATCH, COMPLETE, Operation::CompleteTodo, true, "Complete or reopen a todo"),
    root("/health", Operation::Health, "Liveness"),
    root("/health/ready", Operation::Readiness, "Readiness"),
    root("/health/db", Operation::DatabaseHealth, "Database health"),
    root("/metrics", Operation::Metrics, "Prometheus metrics"),
    root("/openapi.json", Operation::OpenApi, "OpenAPI document"),
    root("/", Operation::Index, "API index"),
];

/// Whether a route is a health probe, which is exempt from the https requirement.
pub(crate) fn is_probe(pattern: &str) -> bool {
    let is_it = |route: &Route| {
        let probes = [Operation::Health, Operation::Readiness, Operation::DatabaseHealth];
        probes.contains(&route.operation) && route.path == pattern
    };
    ROUTES.iter().any(is_it)
}

/// Finds routes by path and method.
pub(crate) struct Matcher(matchit::Router<Resource>);

/// The methods of a path: operation, and whether it requires a token.
type Methods = Vec<(Method, Operation, bool)>;

/// The operations of one path.
#[derive(Clone, Debug)]
struct Resource {
    /// The path with the names of its parameters, used as a metrics label.
    pattern: String,
    methods: Methods,
    /// The `Allow` header: the methods above, HEAD where there is GET, and OPTIONS.
    allow: HeaderValue,
}

/// The result of matching a path and a method.
pub(crate) enum Matched<'m, 'p> {
    /// An operation, and the parameters of its path.
    Operation { operation: Operation, auth: bool, params: PathParams<'p> },
    /// The path matched, the method did not.
    WrongMethod(&'m HeaderValue),
    /// OPTIONS.
    Options(&'m HeaderValue),
}

/// The parameters of a path as sent; empty if absent.
#[derive(Clone, Copy, Default)]
pub(crate) struct PathParams<'p> {
    pub(crate) user: &'p str,
    pub(crate) todo: &'p str,
}

impl Matcher {
    /// The matcher of all routes, with the API's below `prefix`.
    pub(crate) fn new(prefix: &str) -> Self {
        let mut router = matchit::Router::new();
        for (at, route) in ROUTES.iter().enumerate() {
            let shares_path =
                |other: &Route| (other.path, other.is_api) == (route.path, route.is_api);
            if ROUTES[..at].iter().any(shares_path) {
                continue;
            }
            let methods: Methods = ROUTES
                .iter()
                .filter(|other| shares_path(other))
                .map(|other| (other.method.clone(), other.operation, other.auth))
                .collect();
            let allow = allow(&methods);
            let pattern = route.full_path(prefix);
            let resource = Resource { pattern: pattern.clone(), methods, allow };
            // The settings reject a prefix that could collide with another route.
            if let Err(error) = router.insert(pattern, resource) {
                tracing::error!(%error, "route not added");
            }
        }
        Self(router)
    }

    /// The match for `path`, taken literally (no decoding, no merging of slashes), and the pattern
    /// of the route.
    pub(crate) fn find<'p>(
        &self,
        method: &Method,
        path: &'p str,
    ) -> Option<(&str, Matched<'_, 'p>)> {
        let found = self.0.at(path).ok()?;
        let resource = found.value;
        let wanted = if method == Method::HEAD { &Method::GET } else { method };
        let matched = match resource.methods.iter().find(|(method, ..)| method == wanted) {
            _ if method == Method::OPTIONS => Matched::Options(&resource.allow),
            None => Matched::WrongMethod(&resource.allow),
            Some(&(_, operation, auth)) => {
                let params = PathParams {
                    user: found.params.get("user_id").unwrap_or_default(),
                    todo: found.params.get("todo_id").unwrap_or_default(),
                };
                Matched::Operation { operation, auth, params }
            }
        };
        Some((&resource.pattern, matched))
    }
}

impl Route {
    pub(crate) fn full_path(&self, prefix: &str) -> String {
        if self.is_api { format!("{prefix}{}", self.path) } else { self.path.to_owned() }
    }
}

fn allow(methods: &[(Method, Operation, bool)]) -> HeaderValue {
    let mut allow = String::new();
    for (method, ..) in methods {
        allow.push_str(method.as_str());
        allow.push_str(", ");
        if method == Method::GET {
            allow.push_str("HEAD, ");
        }
    }
    allow.push_str("OPTIONS");
    HeaderValue::from_str(&allow).unwrap_or(HeaderValue::from_static("OPTIONS"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_matched_literally() {
        let matcher = Matcher::new("/api");
        let finds = |path| matcher.find(&Method::POST, path).is_some();
        assert!(finds("/api/auth/login"));
        for path in [
            "/api/auth/login/",
            "//api/auth/login",
            "/api//auth/login",
            "/api/auth/%6cogin",
            "/API/auth/login",
            "/auth/login",
            "/api/auth/../auth/login",
            "/api/users//todos",
            "",
            "*",
        ] {
            assert!(!finds(path), "{path}");
        }
    }

    #[test]
    fn every_route_matches_its_path_and_its_method_is_allowed() {
        let matcher = Matcher::new("/v9");
        for route in ROUTES {
            let path = route.full_path("/v9").replace("{user_id}", "u").replace("{todo_id}", "t");
            let Some((pattern, Matched::Operation { operation, auth, params })) =
                matcher.find(&route.method, &path)
            else {
                panic!("{path}")
            };
            assert_eq!((operation, auth), (route.operation, route.auth));
            assert_eq!(pattern, route.full_path("/v9"));
            assert_eq!(params.user == "u", path.contains("/u/"));
            let Some((_, Matched::Options(allow))) = matcher.find(&Method::OPTIONS, &path) else {
                panic!()
            };
            assert!(allow.to_str().unwrap().contains(route.method.as_str()));
        }
    }
}
