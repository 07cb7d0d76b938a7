//! A process with the jobs of a server and no listener, which a test kills: `with-jobs` fires the
//! reminders of `DATABASE_URL`, and sends them to the test at `RECEIVER` in place of their
//! webhooks. Its clock runs `SPEED` times as fast since `EPOCH`, in seconds since 1970.
#![forbid(unsafe_code)]

use std::{env, error::Error, future::pending, process, sync::Arc, time::Duration};

use todo_core::{
    Core, Secret,
    webhooks::{HttpError, HttpRequest, PostFuture, WebhookClient},
};
use todo_tests::{SECRET, fast_clock};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// Sends the id of this process and that of the reminder in a line, and expects a byte.
struct Line(String);

impl WebhookClient for Line {
    fn post(&self, request: HttpRequest) -> PostFuture<'_> {
        Box::pin(async move {
            let id = request.headers().find(|(name, _)| *name == "webhook-id");
            let line = format!("{} {}\n", process::id(), id.map_or("", |(_, id)| id));
            let exchange = async {
                let mut stream = TcpStream::connect(&self.0).await?;
                stream.write_all(line.as_bytes()).await?;
                stream.read_u8().await
            };
            exchange.await.map_err(|error| HttpError::new(error.to_string()))?;
            Ok(204)
        })
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let clock = fast_clock(env::var("EPOCH")?.parse()?, env::var("SPEED")?.parse()?);
    let core = Core::builder(Secret::new(SECRET)?)
        .clock(clock)
        .webhook_client(Arc::new(Line(env::var("RECEIVER")?)))
        .open(&env::var("DATABASE_URL")?)
        .await?;
    // Not all processes at the same moments.
    let pause = u64::from(process::id() % 5) * 200;
    tokio::time::sleep(Duration::from_millis(pause)).await;
    let _jobs = todo_runtime::spawn_jobs(&core);
    pending().await
}
