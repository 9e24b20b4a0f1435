//! What the connections count: one set of counters per core, so that counting shares no cache line between cores.

use std::sync::atomic::{AtomicU64, Ordering};

/// Why a connection ended. Every close is counted under exactly one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CloseReason {
    /// The peer closed it, as the protocol says.
    Peer,
    /// The peer went away without a word.
    Lost,
    /// A script, handler or backend closed it.
    Closed,
    /// The peer broke the protocol.
    Protocol,
    /// A message or packet was larger than allowed.
    TooLarge,
    /// It did not read what it was sent.
    SlowReader,
    /// Nothing was heard from it.
    Idle,
    /// The handshake was refused or came too late.
    Handshake,
    /// Its script failed in a way that cannot go on.
    Script,
    /// Its permission ended.
    Unauthorized,
    /// The gateway stopped.
    Shutdown,
    /// There were as many connections as there may be.
    TooMany,
}

impl CloseReason {
    /// Every reason, in the order in which they are counted.
    pub const ALL: [Self; 12] = [
        Self::Peer,
        Self::Lost,
        Self::Closed,
        Self::Protocol,
        Self::TooLarge,
        Self::SlowReader,
        Self::Idle,
        Self::Handshake,
        Self::Script,
        Self::Unauthorized,
        Self::Shutdown,
        Self::TooMany,
    ];

    /// Its name in metrics and in `on_close`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Peer => "peer",
            Self::Lost => "lost",
            Self::Closed => "closed",
            Self::Protocol => "protocol",
            Self::TooLarge => "too_large",
            Self::SlowReader => "slow_reader",
            Self::Idle => "idle",
            Self::Handshake => "handshake",
            Self::Script => "script",
            Self::Unauthorized => "unauthorized",
            Self::Shutdown => "shutdown",
            Self::TooMany => "too_many",
        }
    }

    fn place(self) -> usize {
        Self::ALL.iter().position(|reason| *reason == self).unwrap_or(0)
    }
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// The counters of one core.
        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            $(pub(crate) $name: AtomicU64,)*
            closed: [AtomicU64; CloseReason::ALL.len()],
        }

        /// What was counted since the start.
        #[derive(Debug, Clone, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Stats {
            $($(#[$doc])* pub $name: u64,)*
            closed: [u64; CloseReason::ALL.len()],
        }

        impl Counters {
            pub(crate) fn read(&self) -> Stats {
                Stats {
                    $($name: self.$name.load(Ordering::Relaxed),)*
                    closed: std::array::from_fn(|place| {
                        self.closed.get(place).map_or(0, |counter| counter.load(Ordering::Relaxed))
                    }),
                }
            }
        }

        impl std::iter::Sum for Stats {
            fn sum<I: Iterator<Item = Self>>(parts: I) -> Self {
                parts.fold(Self::default(), |mut sum, part| {
                    $(sum.$name += part.$name;)*
                    for (total, part) in sum.closed.iter_mut().zip(part.closed) {
                        *total += part;
                    }
                    sum
                })
            }
        }
    };
}

counters! {
    /// Connections open now.
    connections,
    /// Connections accepted.
    accepted,
    /// WebSocket handshakes done.
    handshakes,
    /// Channels with a subscriber now, counted on each core.
    channels,
    /// Subscriptions now.
    subscriptions,
    /// Messages received.
    messages_in,
    /// Messages sent; one per connection.
    messages_out,
    /// Bytes received.
    bytes_in,
    /// Bytes sent.
    bytes_out,
    /// Publishes, each core counting its own part.
    publishes,
    /// Callbacks of scripts that failed.
    script_errors,
    /// Scripts taken anew.
    script_reloads,
    /// Scripts that were not taken because they do not work.
    script_reload_errors,
    /// Times that accepting failed, such as for want of descriptors.
    accept_errors,
}

impl Counters {
    pub(crate) fn closed(&self, reason: CloseReason) {
        if let Some(counter) = self.closed.get(reason.place()) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn add(counter: &AtomicU64, n: u64) {
        counter.fetch_add(n, Ordering::Relaxed);
    }

    pub(crate) fn subtract(counter: &AtomicU64, n: u64) {
        counter.fetch_sub(n, Ordering::Relaxed);
    }
}

impl Stats {
    /// How many connections ended, by reason.
    pub fn closed(&self) -> impl Iterator<Item = (CloseReason, u64)> + '_ {
        CloseReason::ALL.into_iter().zip(self.closed.iter().copied())
    }
}
