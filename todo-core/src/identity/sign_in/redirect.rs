//! The addresses of apps to which a sign-in returns. An address from a request is compared with
//! those of the operator as a text and is never parsed: parsers differ, and a browser's is another
//! one.

use url::{Host, Url};

/// Maximum length of an address, in bytes.
const MAX_BYTES: usize = 500;
/// The beginnings of addresses that allow any port: loopback addresses of native apps (RFC 8252,
/// section 7.3). `localhost` may be another host (section 8.3).
const LOOPBACK: [&str; 2] = ["http://127.0.0.1", "http://[::1]"];

/// Whether an operator may list the address.
pub(super) fn is_redirect(text: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_graphic() && !b"\\#\"<>".contains(&byte);
    if text.len() > MAX_BYTES || !text.bytes().all(is_allowed) {
        return false;
    }
    let Ok(url) = Url::parse(text) else { return false };
    if !url.username().is_empty() || url.password().is_some() {
        return false;
    }
    match url.scheme() {
        "https" => url.has_host(),
        "http" => url.host().is_some_and(|host| match host {
            Host::Domain(name) => name == "localhost",
            Host::Ipv4(address) => address.is_loopback(),
            Host::Ipv6(address) => address.is_loopback(),
        }),
        // A private scheme is a reversed domain name, so it has a dot; `javascript` has none.
        scheme => scheme.contains('.'),
    }
}

/// Whether `given` is one of the `listed` addresses.
pub(super) fn is_listed(listed: &[String], given: &str) -> bool {
    listed.iter().any(|each| each == given || is_with_port(each, given))
}

/// Whether `given` is the loopback address `listed`, which has no port, with a port.
fn is_with_port(listed: &str, given: &str) -> bool {
    LOOPBACK.into_iter().any(|host| {
        let Some(path) = listed.strip_prefix(host).filter(|path| path.starts_with('/')) else {
            return false;
        };
        let port = given.strip_prefix(host).and_then(|rest| rest.strip_suffix(path));
        port.and_then(|port| port.strip_prefix(':')).is_some_and(|port| {
            port.bytes().all(|byte| byte.is_ascii_digit())
                && !port.starts_with('0')
                && port.parse::<u16>().is_ok()
        })
    })
}

/// The address with these parameters in its query.
pub(crate) fn with_parameters<'a>(
    address: &str,
    parameters: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> String {
    let separator = if address.contains('?') { '&' } else { '?' };
    let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(parameters).finish();
    format!("{address}{separator}{query}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operators_list_addresses_of_apps() {
        for valid in [
            "https://app.example.com/signed-in",
            "https://app.example.com/signed-in?a=1",
            "http://localhost:3000/",
            "http://127.0.0.1/signed-in",
            "http://[::1]:4000/",
            "com.example.app:/signed-in",
        ] {
            assert!(is_redirect(valid), "{valid}");
        }
        for invalid in [
            "",
            "/signed-in",
            "http://app.example.com/",
            "https://app.example.com/#a",
            "https://app.example.com\\@evil.example/",
            "https://user@app.example.com/",
            "https://app.example.com/ a",
            "javascript:alert(1)",
            "data:text/html,a",
            "*",
            &format!("https://app.example.com/{}", "x".repeat(MAX_BYTES)),
        ] {
            assert!(!is_redirect(invalid), "{invalid}");
        }
    }

    #[test]
    fn an_address_must_be_listed_byte_by_byte() {
        let listed = [
            "https://app.example.com/in",
            "http://127.0.0.1/in",
            "http://[::1]/in",
            "http://localhost/in",
            "http://127.0.0.1:4000/fixed",
        ]
        .map(str::to_owned);
        for allowed in [
            "https://app.example.com/in",
            "http://127.0.0.1/in",
            "http://127.0.0.1:1/in",
            "http://127.0.0.1:65535/in",
            "http://[::1]:8080/in",
            "http://127.0.0.1:4000/fixed",
        ] {
            assert!(is_listed(&listed, allowed), "{allowed}");
        }
        for refused in [
            "https://app.example.com/in/",
            "https://app.example.com/IN",
            "https://APP.example.com/in",
            "https://app.example.com./in",
            "https://app.example.com:443/in",
            "https://app.example.com@evil.example/in",
            "https://app.example.com\\@evil.example/in",
            "https://app.example.com/in?a",
            "https://app.example.com/in#a",
            " https://app.example.com/in",
            "https://evil.example/https://app.example.com/in",
            "http://app.example.com/in",
            "http://127.0.0.1:@evil.example/in",
            "http://127.0.0.1:80@evil.example/in",
            "http://127.0.0.1:0/in",
            "http://127.0.0.1:080/in",
            "http://127.0.0.1:/in",
            "http://127.0.0.1:65536/in",
            "http://127.0.0.1:+80/in",
            "http://127.0.0.1.evil.example/in",
            "http://localhost:3000/in",
            "http://127.0.0.1:4001/fixed",
            "",
        ] {
            assert!(!is_listed(&listed, refused), "{refused}");
        }
        assert!(!is_listed(&[], ""));
    }

    #[test]
    fn parameters_are_encoded() {
        let pairs = [("code", "a b"), ("state", "ä&")];
        assert_eq!(with_parameters("a:/b", pairs), "a:/b?code=a+b&state=%C3%A4%26");
        assert_eq!(with_parameters("a:/b?c", [("d", "e")]), "a:/b?c&d=e");
    }
}
