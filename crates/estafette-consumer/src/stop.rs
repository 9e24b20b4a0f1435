//! How a run ends: what asks it to, and the limits it watches itself.

use std::{future::Future, pin::Pin, time::Duration};

use estafette_core::{Error, ErrorKind, Result};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::Instant,
};

use crate::StopReason;

/// What asks a run to stop from outside, besides its own limits.
#[derive(Default)]
pub(crate) struct Trigger {
    signals: Option<(Signal, Signal)>,
    deadline: Option<Instant>,
    asked: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl Trigger {
    /// SIGTERM and SIGINT. From now on this process no longer ends at the first one by itself.
    pub(crate) fn signals() -> Result<Self> {
        let listen = |kind| signal(kind).map_err(|source| Error::new(ErrorKind::Engine, source));
        let signals = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
        Ok(Self { signals: Some(signals), deadline: None, asked: None })
    }

    /// The end of `future`, and nothing else.
    pub(crate) fn future(future: impl Future<Output = ()> + Send + 'static) -> Self {
        Self::default().or_when(Box::pin(future))
    }

    /// Also when `asked` ends.
    pub(crate) fn or_when(mut self, asked: Pin<Box<dyn Future<Output = ()> + Send>>) -> Self {
        self.asked = Some(asked);
        self
    }

    /// Also when this much time has passed.
    pub(crate) fn or_after(mut self, time: Duration) -> Self {
        self.deadline = Some(Instant::now() + time);
        self
    }

    /// Waits until something asks. Cancel safe. Asked again, it waits for the next signal.
    pub(crate) async fn fired(&mut self) -> StopReason {
        let Self { signals, deadline, asked } = self;
        let reason = tokio::select! {
            () = next_signal(signals) => return StopReason::Signal,
            () = passed(*deadline) => StopReason::Asked,
            () = ended(asked) => StopReason::Asked,
        };
        *deadline = None;
        *asked = None;
        reason
    }
}

async fn next_signal(signals: &mut Option<(Signal, Signal)>) {
    let Some((terminate, interrupt)) = signals else { return std::future::pending().await };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

async fn passed(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

async fn ended(asked: &mut Option<Pin<Box<dyn Future<Output = ()> + Send>>>) {
    match asked {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

/// The limits a run watches itself.
#[derive(Clone, Debug, Default)]
pub(crate) struct Limits {
    /// Ends after so many messages were handled.
    pub(crate) count: Option<u64>,
    /// Ends when the queue holds no work.
    pub(crate) until_empty: bool,
    /// Ends when nothing came for so long.
    pub(crate) idle: Option<Duration>,
    /// Ends after so many failed attempts.
    pub(crate) failures: Option<u64>,
    /// Ends when the process occupies so many bytes of memory.
    pub(crate) memory_bytes: Option<u64>,
}

/// The bytes of memory this process occupies; `None` where the system does not say.
pub(crate) fn resident_bytes() -> Option<u64> {
    // proc(5): the second field of statm is the resident set, in pages.
    let pages: u64 = std::fs::read_to_string("/proc/self/statm").ok()?.split(' ').nth(1)?.parse().ok()?;
    Some(pages * 4096)
}
