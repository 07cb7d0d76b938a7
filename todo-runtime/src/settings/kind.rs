//! Kinds of values: the texts that a setting allows, how they are parsed, and how a value is
//! printed.

use std::{
    fmt::Display,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    ops::RangeInclusive,
    path::PathBuf,
    str::FromStr,
    time::Duration,
};

use ipnet::IpNet;
use todo_core::{
    Algorithm, DatabaseUrl, Secret,
    auth::Email,
    http::{Origin, PublicUrl, canonical_networks},
    identity::{IssuerOptions, SignatureAlgorithm},
    sign_in::{ClientSecret, SignInOptions, SignInProvider},
};

use super::{Environment, LogFormat};
use crate::mail::MailAddress;

/// A kind of values.
pub(super) struct Kind<T> {
    /// The allowed values, in a form that completes `NAME must be …`.
    pub(super) allowed: String,
    parse: Box<Parser<T>>,
    /// `None` if the value is not set.
    print: Box<Printer<T>>,
}

/// Returns a value, or why its text is not allowed. The reason does not contain the text, which may
/// be a secret; `None` if the allowed values say enough.
type Parser<T> = dyn Fn(&str) -> Result<T, Option<String>>;

type Printer<T> = dyn Fn(&T) -> Option<String>;

impl<T: 'static> Kind<T> {
    fn new(
        allowed: impl Into<String>,
        parse: impl Fn(&str) -> Option<T> + 'static,
        print: impl Fn(&T) -> String + 'static,
    ) -> Self {
        Self {
            allowed: allowed.into(),
            parse: Box::new(move |text| parse(text).ok_or(None)),
            print: Box::new(move |value| Some(print(value))),
        }
    }

    /// Parses a text, or returns the allowed values and, if known, the reason.
    pub(super) fn parse(&self, text: &str) -> Result<T, String> {
        (self.parse)(text).map_err(|reason| match reason {
            Some(reason) => format!("{}: {reason}", self.allowed),
            None => self.allowed.clone(),
        })
    }

    /// The value as text, without secrets; `None` if it is not set.
    pub(super) fn print(&self, value: &T) -> Option<String> {
        (self.print)(value)
    }
}

/// A setting that may be unset.
pub(super) fn optional<T: 'static>(kind: Kind<T>) -> Kind<Option<T>> {
    let Kind { allowed, parse, print } = kind;
    Kind {
        allowed,
        parse: Box::new(move |text| parse(text).map(Some)),
        print: Box::new(move |value| value.as_ref().and_then(&print)),
    }
}

/// A number of a range. `what` names it, with its unit.
pub(super) fn number<T>(what: &str, range: RangeInclusive<T>) -> Kind<T>
where
    T: FromStr + PartialOrd + Display + 'static,
{
    let allowed = format!("{what} from {} to {}", range.start(), range.end());
    let parse = move |text: &str| text.parse().ok().filter(|number| range.contains(number));
    Kind::new(allowed, parse, T::to_string)
}

/// A number of whole seconds.
pub(super) fn seconds(range: RangeInclusive<u64>) -> Kind<Duration> {
    let number = number("seconds", range);
    let allowed = number.allowed.clone();
    let parse = move |text: &str| number.parse(text).ok().map(Duration::from_secs);
    Kind::new(allowed, parse, |time| time.as_secs().to_string())
}

/// A number of whole milliseconds.
pub(super) fn milliseconds(range: RangeInclusive<u64>) -> Kind<Duration> {
    let number = number("milliseconds", range);
    let allowed = number.allowed.clone();
    let parse = move |text: &str| number.parse(text).ok().map(Duration::from_millis);
    Kind::new(allowed, parse, |time| time.as_millis().to_string())
}

/// One of several words.
fn one_of<T, const N: usize>(words: [(&'static str, T); N]) -> Kind<T>
where
    T: Copy + PartialEq + 'static,
{
    let allowed = match words.map(|(word, _)| word).as_slice() {
        [first @ .., last] if !first.is_empty() => format!("{} or {last}", first.join(", ")),
        words => words.concat(),
    };
    let parse =
        move |text: &str| words.iter().find_map(|(word, value)| (*word == text).then_some(*value));
    let print = move |value: &T| {
        let word = words.iter().find(|(_, known)| known == value);
        word.map(|(word, _)| (*word).to_owned()).unwrap_or_default()
    };
    Kind::new(allowed, parse, print)
}

pub(super) fn algorithm() -> Kind<Algorithm> {
    one_of([("HS256", Algorithm::Hs256), ("HS384", Algorithm::Hs384), ("HS512", Algorithm::Hs512)])
}

pub(super) fn environment() -> Kind<Environment> {
    one_of([
        ("development", Environment::Development),
        ("staging", Environment::Staging),
        ("production", Environment::Production),
    ])
}

pub(super) fn log_format() -> Kind<LogFormat> {
    one_of([("text", LogFormat::Text), ("json", LogFormat::Json)])
}

pub(super) fn log_level() -> Kind<String> {
    // Python uses these names in upper case, and two more.
    let parse = |text: &str| match &*text.to_ascii_lowercase() {
        "warning" => Some("warn".into()),
        "critical" => Some("error".into()),
        level @ ("trace" | "debug" | "info" | "warn" | "error") => Some(level.into()),
        _ => None,
    };
    Kind::new("trace, debug, info, warn or error", parse, String::clone)
}

pub(super) fn boolean() -> Kind<bool> {
    let parse = |text: &str| match &*text.to_ascii_lowercase() {
        "true" | "1" | "yes" | "on" => Some(true),
        "false" | "0" | "no" | "off" => Some(false),
        _ => None,
    };
    Kind::new("true or false", parse, bool::to_string)
}

pub(super) fn database_url() -> Kind<DatabaseUrl> {
    Kind {
        allowed: "the address of a database".into(),
        parse: Box::new(|text| DatabaseUrl::parse(text).map_err(|defect| Some(defect.to_string()))),
        print: Box::new(|url| Some(url.shown())),
    }
}

pub(super) fn secret() -> Kind<Secret> {
    let allowed = format!("at least {} bytes", Secret::MIN_BYTES);
    Kind::new(allowed, |text| Secret::new(text).ok(), |_| "(set, hidden)".into())
}

pub(super) fn host() -> Kind<IpAddr> {
    let parse = |text: &str| match text {
        "localhost" => Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        text => text.parse().ok(),
    };
    Kind::new("an IP address or localhost", parse, IpAddr::to_string)
}

pub(super) fn socket_address() -> Kind<SocketAddr> {
    let allowed = "an IP address and a port, such as 127.0.0.1:9000";
    Kind::new(allowed, |text| text.parse().ok(), SocketAddr::to_string)
}

pub(super) fn origins() -> Kind<Vec<Origin>> {
    let allowed = "a comma-separated list of origins such as https://example.com or \
                   capacitor://localhost, without a path";
    let parse = |text: &str| {
        let mut origins = Vec::new();
        for origin in list(text) {
            let origin = Origin::try_from(origin).ok()?;
            if !origins.contains(&origin) {
                origins.push(origin);
            }
        }
        Some(origins)
    };
    Kind::new(allowed, parse, |origins| joined(origins))
}

pub(super) fn networks() -> Kind<Vec<IpNet>> {
    let parse = |text: &str| {
        let networks = list(text)
            .map(|text| text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)).ok())
            .collect::<Option<Vec<_>>>();
        networks.map(canonical_networks)
    };
    let allowed = "a comma-separated list of networks such as 10.0.0.0/8";
    Kind::new(allowed, parse, |networks| joined(networks))
}

pub(super) fn public_url() -> Kind<PublicUrl> {
    Kind::new(PublicUrl::ALLOWED, |text| PublicUrl::parse(text).ok(), PublicUrl::to_string)
}

pub(super) fn mail_address() -> Kind<MailAddress> {
    Kind {
        allowed: MailAddress::ALLOWED.into(),
        parse: Box::new(|text| MailAddress::parse(text).map_err(|why| Some(why.to_owned()))),
        print: Box::new(|address| Some(address.shown())),
    }
}

pub(super) fn issuer() -> Kind<String> {
    let allowed = "an https address without a query, http only for this machine";
    let is_issuer = |text: &str| IssuerOptions::new(text, "todo").is_ok();
    Kind::new(allowed, move |text| is_issuer(text).then(|| text.to_owned()), String::clone)
}

pub(super) fn jwks_url() -> Kind<String> {
    let allowed = "an https address, http only for this machine";
    let is_address = |text: &str| {
        let issuer = IssuerOptions::new("https://localhost", "todo");
        issuer.and_then(|issuer| issuer.jwks_url(text)).is_ok()
    };
    Kind::new(allowed, move |text| is_address(text).then(|| text.to_owned()), String::clone)
}

pub(super) fn client_id() -> Kind<String> {
    let is_id = |text: &str| {
        let secret = ClientSecret::new("secret");
        secret.and_then(|secret| SignInProvider::google(text, secret)).is_ok()
    };
    let allowed = "at most 500 printable ASCII characters";
    Kind::new(allowed, move |text| is_id(text).then(|| text.to_owned()), String::clone)
}

pub(super) fn client_secret() -> Kind<ClientSecret> {
    let allowed = "at most 500 printable ASCII characters";
    Kind::new(allowed, |text| ClientSecret::new(text).ok(), |_| "(set, hidden)".into())
}

/// Addresses of apps to which a sign-in may return.
pub(super) fn redirects() -> Kind<Vec<String>> {
    let allowed = "a comma-separated list of https addresses, private schemes with a dot, and \
                   http addresses of this machine, without fragments";
    let parse = |text: &str| {
        let redirects: Vec<String> = list(text).map(str::to_owned).collect();
        let options = SignInOptions::new("https://localhost/oauth").ok()?;
        options.redirects(redirects.iter().cloned()).is_ok().then_some(redirects)
    };
    Kind::new(allowed, parse, |redirects| joined(redirects))
}

pub(super) fn signature_algorithms() -> Kind<Vec<SignatureAlgorithm>> {
    let names = |all: &[SignatureAlgorithm]| {
        let names: Vec<_> = all.iter().map(|algorithm| algorithm.as_str()).collect();
        names.join(",")
    };
    let allowed = format!("a list of {}", names(&SignatureAlgorithm::ALL));
    let parse = |text: &str| {
        let parsed: Result<Vec<_>, _> = text.split(',').map(|name| name.trim().parse()).collect();
        parsed.ok()
    };
    Kind::new(allowed, parse, move |all| names(all))
}

pub(super) fn email() -> Kind<Email> {
    let print = |email: &Email| email.as_str().to_owned();
    Kind::new("an e-mail address", |text| Email::parse(text).ok(), print)
}

/// A path without a slash at its end.
pub(super) fn path_prefix() -> Kind<String> {
    let parse = |text: &str| {
        let path = text.strip_suffix('/').unwrap_or(text);
        let is_segment = |segment: &str| {
            // Clients remove dot segments from a path (RFC 3986, section 5.2.4).
            !["", ".", ".."].contains(&segment)
                && segment.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~".contains(&b))
        };
        path.strip_prefix('/')?.split('/').all(is_segment).then(|| path.to_owned())
    };
    Kind::new("a path such as /api", parse, String::clone)
}

/// A line of text.
pub(super) fn line(max_chars: usize) -> Kind<String> {
    let parse = move |text: &str| {
        let fits = text.chars().count() <= max_chars && !text.chars().any(char::is_control);
        fits.then(|| text.to_owned())
    };
    Kind::new(format!("at most {max_chars} characters"), parse, String::clone)
}

/// A name for users.
pub(super) fn title() -> Kind<String> {
    let Kind { parse, print, .. } = line(100);
    let parse = move |text: &str| if text.is_empty() { Err(None) } else { parse(text) };
    Kind { allowed: "1 to 100 characters".into(), parse: Box::new(parse), print }
}

/// The path of a PEM file.
pub(super) fn pem_file() -> Kind<PathBuf> {
    let parse = |text: &str| (!is_pem(text)).then(|| PathBuf::from(text));
    let allowed = "the path of a PEM file, not its content";
    Kind::new(allowed, parse, |path| path.display().to_string())
}

/// Whether the text is PEM, or the base64 of a key or certificate (an ASN.1 sequence), and not a
/// path.
fn is_pem(text: &str) -> bool {
    let is_base64 = || {
        text.len() >= 60
            && text.starts_with('M')
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"+/=".contains(&b))
    };
    text.contains("-----") || text.contains(char::is_control) || is_base64()
}

fn list(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|item| !item.is_empty())
}

fn joined(items: &[impl ToString]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}
