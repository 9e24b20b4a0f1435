//! The handler that prints messages.

use std::{
    io,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use estafette::{Context, Verdict, wire};
use tokio::{
    io::{AsyncWriteExt as _, Stdout, stdout},
    sync::{Mutex as AsyncMutex, Notify},
};

use crate::output;

/// Prints messages, each as one line of CloudEvents JSON. What cannot be printed is not acknowledged.
///
/// Written without blocking the runtime, so that a reader who stops reading does not keep the command from ending.
pub(super) struct Printer {
    stdout: AsyncMutex<Stdout>,
    failure: Mutex<Option<io::Error>>,
    is_closed: OnceLock<()>,
    failed: Notify,
}

impl Default for Printer {
    fn default() -> Self {
        Self {
            stdout: AsyncMutex::new(stdout()),
            failure: Mutex::new(None),
            is_closed: OnceLock::new(),
            failed: Notify::new(),
        }
    }
}

impl Printer {
    /// Prints a message; when that is impossible the message goes back as it was.
    pub(super) async fn handle(self: Arc<Self>, context: Context) -> Verdict {
        if self.is_closed.get().is_none() {
            let mut line = wire::encode(context.envelope());
            line.push(b'\n');
            match self.write(&line).await {
                Ok(()) => return Verdict::Ack,
                Err(error) => self.fail(error),
            }
        }
        Verdict::Snooze(std::time::Duration::ZERO)
    }

    async fn write(&self, line: &[u8]) -> io::Result<()> {
        let mut stdout = self.stdout.lock().await;
        stdout.write_all(line).await?;
        // The write is only known to have worked once it is flushed: before the message is acknowledged.
        stdout.flush().await
    }

    fn fail(&self, error: io::Error) {
        if self.is_closed.set(()).is_ok() {
            *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            self.failed.notify_one();
        }
    }

    /// Waits until printing has failed.
    pub(super) async fn failed(&self) {
        self.failed.notified().await;
    }

    /// Whether everything was printed.
    ///
    /// # Errors
    ///
    /// As [`output::outcome`].
    pub(super) fn outcome(&self) -> anyhow::Result<()> {
        let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner).take();
        output::outcome(failure.map_or(Ok(()), Err))
    }
}
