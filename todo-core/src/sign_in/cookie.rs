//! The cookie of a sign-in (RFC 6265). It has the sealed state of a sign-in that is under way, and
//! authenticates nobody.

/// The name, which browsers accept only with `Secure`, `Path=/` and no `Domain`: no other host,
/// and no page without TLS, can set it.
const NAME: &str = "__Host-todo-flow";
/// The name where browsers reach the routes by http, on this machine: they need not accept that of
/// above, nor `Secure`.
const LOCAL_NAME: &str = "todo-flow";
/// Its lifetime in seconds: that of a sign-in.
const MAX_AGE: u32 = 600;

/// The value of a `Set-Cookie` field. `Lax`, since the redirect of a provider has to send it.
pub(super) fn set(value: &str, is_https: bool) -> String {
    with_age(value, MAX_AGE, is_https)
}

/// The value of a `Set-Cookie` field that deletes the cookie.
pub(super) fn delete(is_https: bool) -> String {
    with_age("", 0, is_https)
}

fn with_age(value: &str, max_age: u32, is_https: bool) -> String {
    let name = name(is_https);
    let secure = if is_https { "; Secure" } else { "" };
    format!("{name}={value}; Path=/; Max-Age={max_age}; HttpOnly; SameSite=Lax{secure}")
}

/// The values of the cookie in the fields `Cookie` of a request.
pub(super) fn values<'a>(
    fields: impl IntoIterator<Item = &'a str>,
    is_https: bool,
) -> impl Iterator<Item = &'a str> {
    let pairs = fields.into_iter().flat_map(|field| field.split(';'));
    pairs.filter_map(move |pair| {
        let (key, value) = pair.split_once('=')?;
        (key.trim() == name(is_https)).then(|| value.trim())
    })
}

fn name(is_https: bool) -> &'static str {
    if is_https { NAME } else { LOCAL_NAME }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cookie_is_bound_to_its_host() {
        let expected = "__Host-todo-flow=abc; Path=/; Max-Age=600; HttpOnly; SameSite=Lax; Secure";
        assert_eq!(set("abc", true), expected);
        let deleted = "todo-flow=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax";
        assert_eq!(delete(false), deleted);
    }

    #[test]
    fn the_values_are_found_among_other_cookies() {
        let fields = ["a=b; __Host-todo-flow=one;todo-flow=local", "c; __Host-todo-flow = two"];
        assert_eq!(values(fields, true).collect::<Vec<_>>(), ["one", "two"]);
        assert_eq!(values(fields, false).collect::<Vec<_>>(), ["local"]);
    }
}
