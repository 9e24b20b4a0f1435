//! What a run did, and why it ended.

use std::fmt;

/// Why a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StopReason {
    /// As many messages as asked for were handled.
    Count,
    /// The future given ended.
    Asked,
    /// The time asked for passed.
    Time,
    /// SIGTERM or SIGINT.
    Signal,
    /// The queue was empty.
    Empty,
    /// Nothing came for as long as allowed.
    Idle,
    /// As many attempts failed as allowed.
    FailureLimit,
    /// The process uses as much memory as allowed.
    MemoryLimit,
}

impl StopReason {
    /// The reason in a word or two.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Count => "count reached",
            Self::Asked => "asked to stop",
            Self::Time => "time passed",
            Self::Signal => "signal",
            Self::Empty => "queue empty",
            Self::Idle => "idle",
            Self::FailureLimit => "failure limit",
            Self::MemoryLimit => "memory limit",
        }
    }
}

impl fmt::Display for StopReason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.as_str())
    }
}

/// What a run did: how its deliveries were settled, and why it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Messages acknowledged.
    pub acked: u64,
    /// Messages put back for a retry.
    pub retried: u64,
    /// Messages moved to the dead letters.
    pub dead: u64,
    /// Messages put back unspent: snoozed, or not begun when the run ended.
    pub released: u64,
    /// Settlements without effect, because the lease was lost or the transport failed: those messages come again.
    pub lost: u64,
    /// Why the run ended.
    pub reason: StopReason,
}

impl Summary {
    pub(crate) fn new() -> Self {
        Self { acked: 0, retried: 0, dead: 0, released: 0, lost: 0, reason: StopReason::Asked }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { acked, retried, dead, released, lost, reason } = self;
        write!(formatter, "{acked} acked, {retried} retried, {dead} dead")?;
        if *released > 0 {
            write!(formatter, ", {released} released")?;
        }
        if *lost > 0 {
            write!(formatter, ", {lost} lost")?;
        }
        write!(formatter, " ({reason})")
    }
}
