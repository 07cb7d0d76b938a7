//! Mails over SMTP (RFC 5321), one connection each.

use std::{error::Error as _, io, time::Duration};

use lettre::{
    Address,
    address::Envelope,
    transport::smtp::{
        Error,
        authentication::{Credentials, DEFAULT_MECHANISMS},
        client::{AsyncSmtpConnection, TlsParameters},
        extension::ClientId,
    },
};
use todo_core::mail::{Mailer, Message, SendError, SendFuture};
use tokio::time::timeout;

use super::address::{Login, SmtpAddress, TlsMode};

/// Timeout of a connection's start. The sender limits the whole attempt.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for the end of a connection whose mail is already accepted.
const QUIT_TIMEOUT: Duration = Duration::from_secs(1);

/// Sends mails over SMTP.
pub(super) struct SmtpMailer {
    address: SmtpAddress,
    /// The name in EHLO: the domain of the sender.
    name: ClientId,
}

/// The part of a connection in which an error occurred.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Connect,
    StartTls,
    Login,
    Send,
}

impl SmtpMailer {
    pub(super) fn new(address: SmtpAddress, sender_domain: String) -> Self {
        Self { address, name: ClientId::Domain(sender_domain) }
    }

    /// Connects, encrypts and authenticates.
    pub(super) async fn connect(&self) -> Result<AsyncSmtpConnection, SendError> {
        let SmtpAddress { host, port, tls, login } = &self.address;
        let parameters = || TlsParameters::new_rustls(host.clone());
        let failed = |stage| move |error: Error| classify(&error, stage);
        let implicit = match tls {
            TlsMode::Implicit => Some(parameters().map_err(failed(Stage::StartTls))?),
            TlsMode::StartTls | TlsMode::Off => None,
        };
        let server = (host.as_str(), *port);
        let connecting = AsyncSmtpConnection::connect_tokio1(
            server,
            Some(CONNECT_TIMEOUT),
            &self.name,
            implicit,
            None,
        );
        let mut connection = connecting.await.map_err(failed(Stage::Connect))?;
        if *tls == TlsMode::StartTls {
            let parameters = parameters().map_err(failed(Stage::StartTls))?;
            let started = connection.starttls(parameters, &self.name).await;
            started.map_err(failed(Stage::StartTls))?;
        }
        if let Some(Login { user, password }) = login {
            let credentials = Credentials::new(user.clone(), password.clone());
            let response = connection.auth(DEFAULT_MECHANISMS, &credentials).await;
            response.map_err(failed(Stage::Login))?;
        }
        Ok(connection)
    }

    async fn deliver(&self, message: &Message) -> Result<(), SendError> {
        let from = mailbox(message.from())?;
        let to = mailbox(message.to())?;
        let envelope =
            Envelope::new(Some(from), vec![to]).map_err(|_| SendError::rejected("no recipient"))?;
        let mut connection = self.connect().await?;
        let sent = connection.send(&envelope, message.as_bytes()).await;
        sent.map_err(|error| classify(&error, Stage::Send))?;
        // The server has the mail, however the connection ends.
        let _ = timeout(QUIT_TIMEOUT, connection.quit()).await;
        Ok(())
    }
}

impl Mailer for SmtpMailer {
    fn send<'a>(&'a self, message: &'a Message) -> SendFuture<'a> {
        Box::pin(self.deliver(message))
    }
}

/// The address as lettre takes it. It was validated when it was stored; the server decides about
/// the rest.
fn mailbox(address: &str) -> Result<Address, SendError> {
    let (local, domain) =
        address.rsplit_once('@').ok_or_else(|| SendError::rejected("no mail address"))?;
    Ok(Address::new_dangerous(local, domain))
}

/// What an error means for the mail. Texts of the server may contain the address, or what was sent,
/// and are left out.
fn classify(error: &Error, stage: Stage) -> SendError {
    if let Some(code) = error.status() {
        let code: u16 = code.into();
        let reply = match error.source().map(ToString::to_string).as_deref().and_then(enhanced) {
            Some(status) => format!("{code} {status}"),
            None => code.to_string(),
        };
        return match code {
            ..500 => SendError::temporary(reply),
            // They ask for TLS or a login, or reject the one that was given (RFC 4954, section 6).
            530..=538 => SendError::misconfigured(reply),
            _ if stage == Stage::Send => SendError::rejected(reply),
            // The server rejects the sender, not the mail.
            _ => SendError::misconfigured(reply),
        };
    }
    if error.is_client() || error.is_tls() {
        return match stage {
            Stage::Send => SendError::rejected("the server takes no international addresses"),
            Stage::Login => SendError::misconfigured("the server offers no login that is known"),
            Stage::StartTls => SendError::misconfigured("the server does not offer STARTTLS"),
            Stage::Connect => SendError::misconfigured("the connection is not possible"),
        };
    }
    match io_cause(error) {
        // A certificate that is not trusted, or no TLS at all.
        Some(cause) if cause.kind() == io::ErrorKind::InvalidData => {
            SendError::misconfigured(format!("TLS: {cause}"))
        }
        Some(cause) => SendError::temporary(cause.to_string()),
        None if error.is_response() => SendError::temporary("the connection was cut"),
        None => SendError::temporary("the server cannot be reached"),
    }
}

/// The enhanced status code at the beginning of a reply (RFC 3463, section 2).
fn enhanced(reply: &str) -> Option<String> {
    let first = reply.split_whitespace().next()?;
    let parts: Vec<&str> = first.split('.').collect();
    let is_number = |part: &&str| {
        (1..=3).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit())
    };
    (parts.len() == 3 && parts.iter().all(is_number)).then(|| first.to_owned())
}

/// The error of the socket or of TLS that is the cause.
fn io_cause(error: &Error) -> Option<&io::Error> {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref() {
            return Some(error);
        }
        cause = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_status_of_a_reply_is_kept() {
        assert_eq!(enhanced("5.1.1 <ada@example.com>: rejected").as_deref(), Some("5.1.1"));
        for reply in ["", "<ada@example.com> rejected", "5.1 no", "5.1.x no", "1.2.3.4 no"] {
            assert_eq!(enhanced(reply), None, "{reply}");
        }
    }
}
