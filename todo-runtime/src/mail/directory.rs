//! Mails as `.eml` files in a directory, for development and tests.

use std::{io, path::PathBuf};

use todo_core::mail::{Mailer, Message, SendError, SendFuture};

/// Writes each mail into a file that is named by its id; a repeated mail replaces it.
pub(super) struct DirectoryMailer(pub(super) PathBuf);

impl DirectoryMailer {
    async fn write(&self, message: &Message) -> io::Result<()> {
        tokio::fs::create_dir_all(&self.0).await?;
        let path = self.0.join(format!("{}.eml", message.id()));
        let part = path.with_extension("part");
        tokio::fs::write(&part, message.as_bytes()).await?;
        // A reader finds the whole file or none.
        tokio::fs::rename(part, path).await
    }
}

impl Mailer for DirectoryMailer {
    fn send<'a>(&'a self, message: &'a Message) -> SendFuture<'a> {
        Box::pin(async {
            self.write(message).await.map_err(|error| SendError::temporary(error.to_string()))
        })
    }
}
