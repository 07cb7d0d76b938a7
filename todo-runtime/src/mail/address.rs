//! The address of the system that takes mails, `SMTP_URL`: its syntax, and its form without the
//! password.

use std::{fmt, net::IpAddr, path::PathBuf};

use percent_encoding::percent_decode_str;
use url::Url;

/// Ports of submission (RFC 6409) and of submission over TLS (RFC 8314).
const SUBMISSION_PORT: u16 = 587;
const SUBMISSIONS_PORT: u16 = 465;

/// The system that takes mails. The `Debug` output and [`MailAddress::shown`] have no user and no
/// password.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum MailAddress {
    /// `smtp://…` and `smtps://…`.
    Smtp(SmtpAddress),
    /// `file:///…`: the directory for `.eml` files.
    Directory(PathBuf),
}

/// An SMTP server (RFC 5321).
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct SmtpAddress {
    /// A name or an address; an IPv6 address without brackets.
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) tls: TlsMode,
    pub(super) login: Option<Login>,
}

/// When a connection to an SMTP server is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TlsMode {
    /// From its start.
    Implicit,
    /// After STARTTLS (RFC 3207), which the server must offer.
    StartTls,
    /// Never.
    Off,
}

/// The user and the password of an SMTP server.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Login {
    pub(super) user: String,
    pub(super) password: String,
}

impl MailAddress {
    /// The allowed addresses, in a form that completes `SMTP_URL must be …`.
    pub(crate) const ALLOWED: &str =
        "an address such as smtps://USER:PASSWORD@smtp.example.com or smtp://localhost:25";

    /// Parses an address. The reason of an error does not contain the text.
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        let url = Url::parse(text).map_err(|_| "it is not a URL")?;
        match url.scheme() {
            "smtp" | "smtps" => SmtpAddress::parse(&url).map(Self::Smtp),
            "file" if url.query().is_none() && url.fragment().is_none() => url
                .to_file_path()
                .map(Self::Directory)
                .map_err(|()| "a directory has the form file:///path"),
            _ => Err("the scheme must be smtp, smtps or file"),
        }
    }

    /// The address without user and password.
    pub(crate) fn shown(&self) -> String {
        match self {
            Self::Smtp(address) => address.shown(),
            Self::Directory(path) => format!("file://{}", path.display()),
        }
    }

    /// Whether mails are written to files.
    pub(crate) fn is_directory(&self) -> bool {
        matches!(self, Self::Directory(_))
    }
}

impl fmt::Debug for MailAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown())
    }
}

impl SmtpAddress {
    fn parse(url: &Url) -> Result<Self, &'static str> {
        let host = url.host_str().unwrap_or_default();
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let is_name = |c: char| c.is_ascii_alphanumeric() || "-._:".contains(c);
        if host.is_empty() || !host.chars().all(is_name) {
            return Err("the host must be a name in ASCII or an IP address");
        }
        if !matches!(url.path(), "" | "/") || url.fragment().is_some() {
            return Err("it must have no path and no fragment");
        }
        let is_local = host == "localhost"
            || host.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback());
        let tls = match (url.scheme(), url.query()) {
            ("smtps", None) => TlsMode::Implicit,
            ("smtp", Some("tls=off")) => TlsMode::Off,
            // A connection that does not leave the machine needs no certificate.
            ("smtp", None) if is_local => TlsMode::Off,
            ("smtp", None) => TlsMode::StartTls,
            _ => return Err("the only option is ?tls=off, of smtp"),
        };
        let decoded = |text: &str| {
            let decoded = percent_decode_str(text).decode_utf8();
            decoded.map(Into::into).map_err(|_| "user and password must be UTF-8")
        };
        let login = match (url.username(), url.password()) {
            ("", None) => None,
            ("", Some(_)) | (_, None) => {
                return Err("it must have both user and password, or none");
            }
            (user, Some(password)) => {
                Some(Login { user: decoded(user)?, password: decoded(password)? })
            }
        };
        if tls == TlsMode::Off && login.is_some() && !is_local {
            return Err("a password is sent only over TLS: remove ?tls=off");
        }
        let default_port =
            if tls == TlsMode::Implicit { SUBMISSIONS_PORT } else { SUBMISSION_PORT };
        let port = url.port().unwrap_or(default_port);
        if port == 0 {
            return Err("the port must not be 0");
        }
        Ok(Self { host: host.to_owned(), port, tls, login })
    }

    fn shown(&self) -> String {
        let Self { host, port, tls, .. } = self;
        let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        match tls {
            TlsMode::Implicit => format!("smtps://{host}:{port}"),
            TlsMode::StartTls => format!("smtp://{host}:{port}"),
            TlsMode::Off => format!("smtp://{host}:{port}?tls=off"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_a_port_and_encryption() {
        for (text, shown, login) in [
            ("smtps://u:p@smtp.example.com", "smtps://smtp.example.com:465", true),
            ("smtp://u:p%40%3A%2F@smtp.example.com:2525/", "smtp://smtp.example.com:2525", true),
            ("smtp://smtp.example.com", "smtp://smtp.example.com:587", false),
            ("smtp://relay:25?tls=off", "smtp://relay:25?tls=off", false),
            ("smtp://localhost:25", "smtp://localhost:25?tls=off", false),
            ("smtp://u:p@127.0.0.1", "smtp://127.0.0.1:587?tls=off", true),
            ("smtp://[::1]:25", "smtp://[::1]:25?tls=off", false),
            ("smtps://localhost", "smtps://localhost:465", false),
            ("file:///var/mail/todo", "file:///var/mail/todo", false),
        ] {
            let address = MailAddress::parse(text).unwrap_or_else(|why| panic!("{text}: {why}"));
            assert_eq!(address.shown(), shown, "{text}");
            assert_eq!(format!("{address:?}"), shown, "{text}");
            let has_login =
                matches!(address, MailAddress::Smtp(SmtpAddress { login: Some(_), .. }));
            assert_eq!(has_login, login, "{text}");
        }
        let address = MailAddress::parse("smtps://a%40b:p%40%3A%2F%25@h.example").unwrap();
        let MailAddress::Smtp(SmtpAddress { login: Some(login), .. }) = address else { panic!() };
        assert_eq!((&*login.user, &*login.password), ("a@b", "p@:/%"));
    }

    #[test]
    fn other_addresses_are_rejected_without_their_text() {
        for text in [
            "",
            "hunter2",
            "smtp.example.com:25",
            "http://hunter2@example.com",
            "smtp://",
            "smtp://hunter2@smtp.example.com",
            "smtp://:hunter2@smtp.example.com",
            "smtp://u:hunter2@smtp.example.com?tls=off",
            "smtp://u:hunter2@smtp.example.com?tls=none",
            "smtps://u:hunter2@smtp.example.com?tls=off",
            "smtps://u:hunter2@smtp.example.com/path",
            "smtps://u:hunter2@smtp.example.com#x",
            "smtps://u:hunter2@smtp.example.com:0",
            "smtps://u:hunter2@smtp.example.com:99999",
            "smtps://u:hunter2%ff@smtp.example.com",
            "smtps://u:hunter2@exämple.com",
            "file://relative/hunter2",
            "file:///hunter2?x",
        ] {
            let why = MailAddress::parse(text).unwrap_err();
            assert!(!why.contains("hunter2"), "{text}: {why}");
        }
    }
}
