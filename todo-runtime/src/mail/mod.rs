//! The transports of mails, by `SMTP_URL`. The mails themselves, and their queue, are in
//! `todo_core`.

use std::{sync::Arc, time::Duration};

use todo_core::{
    auth::Email,
    mail::{MailOptions, Mailer},
};
use tokio::time::timeout;
use url::Host;

pub(crate) use self::address::MailAddress;
pub use self::delivery::{MailTask, spawn_mail};
use self::{address::SmtpAddress, directory::DirectoryMailer, smtp::SmtpMailer};
use crate::Settings;

mod address;
mod delivery;
mod directory;
mod smtp;

/// Timeout of [`check_mail`].
const CHECK_TIMEOUT: Duration = Duration::from_secs(15);

impl Settings {
    /// The mails of these settings; `None` without `SMTP_URL`.
    pub(crate) fn mail_options(&self) -> Option<MailOptions> {
        let address = self.smtp_url.as_ref()?;
        let from = self.mail_from.clone()?;
        let app_url = self.app_url.as_ref()?.to_string();
        let options = MailOptions::new(mailer(address, &from), from, app_url)
            .per_hour(self.mail_per_hour)
            .requires_verified_email(self.require_verified_email);
        Some(options)
    }
}

fn mailer(address: &MailAddress, from: &Email) -> Arc<dyn Mailer> {
    match address {
        MailAddress::Smtp(address) => Arc::new(smtp_mailer(address, from)),
        MailAddress::Directory(path) => Arc::new(DirectoryMailer(path.clone())),
    }
}

fn smtp_mailer(address: &SmtpAddress, from: &Email) -> SmtpMailer {
    let domain = from.as_str().rsplit_once('@').map_or("", |(_, domain)| domain);
    // In its ASCII form.
    let domain =
        Host::parse(domain).map_or_else(|_| "localhost".to_owned(), |host| host.to_string());
    SmtpMailer::new(address.clone(), domain)
}

/// Connects to the server of `SMTP_URL`, encrypts the connection and authenticates, without
/// sending a mail; or checks that its directory exists. Returns what was checked; `None` without
/// `SMTP_URL`.
///
/// # Errors
/// Why it failed, without the password.
pub async fn check_mail(settings: &Settings) -> Result<Option<String>, String> {
    let (Some(address), Some(from)) = (&settings.smtp_url, &settings.mail_from) else {
        return Ok(None);
    };
    let shown = address.shown();
    match address {
        MailAddress::Directory(path) if path.is_dir() => Ok(Some(format!("{shown} exists"))),
        MailAddress::Directory(_) => Ok(Some(format!("{shown} is created by the first mail"))),
        MailAddress::Smtp(address) => {
            let mailer = smtp_mailer(address, from);
            let checking = async {
                let mut connection = mailer.connect().await?;
                let _ = connection.quit().await;
                Ok::<_, todo_core::mail::SendError>(())
            };
            match timeout(CHECK_TIMEOUT, checking).await {
                Ok(Ok(())) => Ok(Some(format!("{shown} takes mails"))),
                Ok(Err(error)) => Err(format!("{shown}: {error}")),
                Err(_) => Err(format!("{shown}: no response within {} s", CHECK_TIMEOUT.as_secs())),
            }
        }
    }
}
