//! How a run begins and ends: what asks it to, and the limits it watches itself.

use std::{future::Future, pin::Pin, time::Duration};

use estafette_core::{Error, ErrorKind, Result};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::Instant,
};

use crate::StopReason;

/// A future whose end asks a run to stop.
pub(crate) type Asked = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What is called when a run can take messages.
pub(crate) type Ready = Box<dyn FnOnce() + Send>;

/// The end of the one or the other.
pub(crate) fn either(one: Asked, other: Asked) -> Asked {
    Box::pin(async move {
        tokio::select! {
            () = one => {}
            () = other => {}
        }
    })
}

/// What asks a run to stop from outside, besides its own limits.
#[derive(Default)]
pub(crate) struct Trigger {
    signals: Option<(Signal, Signal)>,
    deadline: Option<Instant>,
    asked: Option<Asked>,
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
    pub(crate) fn or_when(mut self, asked: Asked) -> Self {
        self.asked = Some(match self.asked.take() {
            Some(before) => either(before, asked),
            None => asked,
        });
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
            () = passed(*deadline) => StopReason::Time,
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

async fn ended(asked: &mut Option<Asked>) {
    match asked {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

/// The limits a run watches itself.
#[derive(Clone, Copy, Debug, Default)]
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

/// Looks at the memory this process occupies, now and then.
pub(crate) struct MemoryWatch {
    max: Option<u64>,
    look_at: Instant,
}

impl MemoryWatch {
    /// How often it looks: reading the file takes longer than handling many a message.
    const PERIOD: Duration = Duration::from_millis(100);

    pub(crate) fn new(max: Option<u64>) -> Self {
        Self { max, look_at: Instant::now() }
    }

    /// Whether the process occupies as much as allowed.
    pub(crate) fn is_over(&mut self) -> bool {
        let Some(max) = self.max else { return false };
        let now = Instant::now();
        if now < self.look_at {
            return false;
        }
        self.look_at = now + Self::PERIOD;
        resident_bytes().is_some_and(|used| used >= max)
    }
}

/// The bytes of memory this process occupies; `None` where the system does not say.
fn resident_bytes() -> Option<u64> {
    // proc_pid_status(5), unlike statm, does not need the size of a page.
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_occupies_some_memory() {
        let bytes = resident_bytes().unwrap();
        assert!(bytes > 100 << 10 && bytes < 100 << 30, "{bytes}");
    }
}
