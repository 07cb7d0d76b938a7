//! Finds the endpoint of a path and a method, and the methods that a path allows.

use http::{HeaderValue, Method};
use uuid::Uuid;

#[cfg(feature = "identity")]
use crate::ids::IdentityId;
use crate::{
    http::endpoint::Endpoint,
    ids::{ListId, SessionId, TodoId, UserId},
};

/// Finds endpoints by path and method.
pub(crate) struct Matcher(matchit::Router<Resource>);

/// The endpoints of one path.
#[derive(Clone, Debug)]
struct Resource {
    /// The path with the names of its parameters, used as a metrics label.
    pattern: String,
    endpoints: Vec<&'static Endpoint>,
    is_probe: bool,
    /// The `Allow` header: the methods above, HEAD where there is GET, and OPTIONS.
    allow: HeaderValue,
}

/// The result of matching a path and a method.
pub(crate) struct Found<'m, 'p> {
    /// The path with the names of its parameters.
    pub(crate) pattern: &'m str,
    /// Whether the path is one of a health probe.
    pub(crate) is_probe: bool,
    pub(crate) matched: Matched<'m, 'p>,
}

/// The result of matching the method of a path.
pub(crate) enum Matched<'m, 'p> {
    /// An endpoint, and the parameters of its path.
    Endpoint(&'static Endpoint, PathParams<'p>),
    /// The path matched, the method did not.
    WrongMethod(&'m HeaderValue),
    /// OPTIONS.
    Options(&'m HeaderValue),
}

/// The parameters of a path as sent; empty if absent.
#[derive(Clone, Copy, Default)]
pub(crate) struct PathParams<'p> {
    user: &'p str,
    /// The id of what the path names below a collection (a todo, a list, a session, a key, an
    /// identity), or the name of a provider.
    item: &'p str,
}

impl<'p> PathParams<'p> {
    /// The name of a sign-in provider.
    #[cfg(feature = "identity")]
    pub(crate) fn provider(self) -> &'p str {
        self.item
    }

    /// The user as sent.
    pub(crate) fn user(self) -> &'p str {
        self.user
    }

    /// The user's id, if it is a UUID.
    pub(crate) fn user_id(self) -> Option<UserId> {
        parse_id(self.user).map(UserId::from)
    }

    /// The todo's id, if it is a UUID.
    pub(crate) fn todo_id(self) -> Option<TodoId> {
        parse_id(self.item).map(TodoId::from)
    }

    /// The list's id, if it is a UUID.
    pub(crate) fn list_id(self) -> Option<ListId> {
        parse_id(self.item).map(ListId::from)
    }

    /// The id of an identity, if it is a UUID.
    #[cfg(feature = "identity")]
    pub(crate) fn identity_id(self) -> Option<IdentityId> {
        parse_id(self.item).map(IdentityId::from)
    }

    /// The id of a session or a key, if it is a UUID.
    pub(crate) fn session_id(self) -> Option<SessionId> {
        parse_id(self.item).map(SessionId::from)
    }

    /// Whether the path names a todo, a list, a session, a key or an identity, by a UUID or not.
    pub(crate) fn has_item(self) -> bool {
        !self.item.is_empty()
    }
}

/// Parses a UUID in the hyphenated form only (RFC 9562, section 4).
pub(crate) fn parse_id(id: &str) -> Option<Uuid> {
    if id.len() == 36 { Uuid::try_parse(id).ok() } else { None }
}

impl Matcher {
    /// The matcher of these endpoints, with the API's below `prefix`.
    pub(crate) fn new(prefix: &str, endpoints: impl Iterator<Item = &'static Endpoint>) -> Self {
        let mut router = matchit::Router::new();
        let mut resources: Vec<Resource> = Vec::new();
        for endpoint in endpoints {
            let pattern = endpoint.full_path(prefix);
            match resources.iter_mut().find(|resource| resource.pattern == pattern) {
                Some(resource) => {
                    resource.endpoints.push(endpoint);
                    resource.is_probe |= endpoint.is_probe;
                }
                None => resources.push(Resource {
                    pattern,
                    endpoints: vec![endpoint],
                    is_probe: endpoint.is_probe,
                    allow: HeaderValue::from_static("OPTIONS"),
                }),
            }
        }
        for mut resource in resources {
            resource.allow = allow(&resource.endpoints);
            // The settings reject a prefix that could collide with another route.
            if let Err(error) = router.insert(resource.pattern.clone(), resource) {
                tracing::error!(%error, "route not added");
            }
        }
        Self(router)
    }

    /// The match for `path`, taken literally (no decoding, no merging of slashes).
    pub(crate) fn find<'p>(&self, method: &Method, path: &'p str) -> Option<Found<'_, 'p>> {
        let found = self.0.at(path).ok()?;
        let resource = found.value;
        let wanted = if method == Method::HEAD { &Method::GET } else { method };
        let matched = match resource.endpoints.iter().find(|each| each.method == wanted) {
            _ if method == Method::OPTIONS => Matched::Options(&resource.allow),
            None => Matched::WrongMethod(&resource.allow),
            Some(endpoint) => {
                let param = |name| found.params.get(name);
                let params = PathParams {
                    user: param("user_id").unwrap_or_default(),
                    item: param("todo_id")
                        .or(param("list_id"))
                        .or(param("session_id"))
                        .or(param("key_id"))
                        .or(param("identity_id"))
                        .or(param("provider"))
                        .unwrap_or_default(),
                };
                Matched::Endpoint(endpoint, params)
            }
        };
        Some(Found { pattern: &resource.pattern, is_probe: resource.is_probe, matched })
    }
}

fn allow(endpoints: &[&Endpoint]) -> HeaderValue {
    let mut allow = String::new();
    for endpoint in endpoints {
        allow.push_str(endpoint.method.as_str());
        allow.push_str(", ");
        if endpoint.method == Method::GET {
            allow.push_str("HEAD, ");
        }
    }
    allow.push_str("OPTIONS");
    HeaderValue::from_str(&allow).unwrap_or(HeaderValue::from_static("OPTIONS"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::endpoint::{Access, endpoints};

    #[test]
    fn paths_are_matched_literally() {
        let matcher = Matcher::new("/api", endpoints());
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
    fn every_endpoint_matches_its_path_and_its_method_is_allowed() {
        let matcher = Matcher::new("/v9", endpoints());
        for endpoint in endpoints() {
            let pattern = endpoint.full_path("/v9");
            let path = pattern.replace("{user_id}", "u").replace("{todo_id}", "t");
            let found = matcher.find(&endpoint.method, &path).unwrap();
            let Matched::Endpoint(other, params) = found.matched else { panic!("{path}") };
            assert!(std::ptr::eq(other, endpoint), "{endpoint:?} is {other:?}");
            assert_eq!(found.pattern, pattern);
            assert_eq!(found.is_probe, endpoint.is_probe);
            assert_eq!(params.user == "u", path.contains("/u/"));
            assert_eq!(params.user == "u", endpoint.access() == Access::Owner, "{endpoint:?}");
            let options = matcher.find(&Method::OPTIONS, &path).unwrap();
            let Matched::Options(allow) = options.matched else { panic!("{path}") };
            assert!(allow.to_str().unwrap().contains(endpoint.method.as_str()));
        }
    }
}
