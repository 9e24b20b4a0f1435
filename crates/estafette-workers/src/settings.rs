//! The limits of the data plane and how deaths are answered, each with its default.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What a participant accepts and how long it waits. The same in every process of a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Limits {
    /// The longest frame or line, in bytes; a peer that announces a longer one is dropped. 16 MiB by default.
    pub frame_bytes_max: usize,
    /// How many bytes may wait for one slow peer before senders wait too. 1 MiB by default; one frame always fits.
    pub queue_bytes_max: usize,
    /// How long a send waits for a peer that is being restarted or takes nothing. Five seconds by default.
    pub send_wait_max: Duration,
    /// How many listeners of one connection may be waiting at once before it is not read on. 256 by default.
    pub listeners_waiting_max: usize,
    /// How many requests may be without a reply per peer. 65,536 by default.
    pub requests_max: usize,
    /// How many connections a participant accepts. 1,024 by default.
    pub connections_max: usize,
    /// How long a participant that expects something at once looks for it before it sleeps. 50 µs by default, zero never to.
    pub looking_max: Duration,
    /// How long a new connection may take to say who it is. Five seconds by default.
    pub hello_wait_max: Duration,
    /// How long a stopping participant lets peers finish what they are sending. Five seconds by default.
    pub goodbye_wait_max: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            frame_bytes_max: 16 << 20,
            queue_bytes_max: 1 << 20,
            send_wait_max: Duration::from_secs(5),
            listeners_waiting_max: 256,
            requests_max: 65_536,
            connections_max: 1024,
            looking_max: Duration::from_micros(50),
            hello_wait_max: Duration::from_secs(5),
            goodbye_wait_max: Duration::from_secs(5),
        }
    }
}

/// How the supervisor answers the death of a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Restart {
    /// The delay before the second restart in a row; the first is immediate, each further one doubles it. 100 ms by default.
    pub delay_first: Duration,
    /// The longest delay. 10 seconds by default.
    pub delay_max: Duration,
    /// How many deaths of one worker within [`window`](Self::window) stop the group. 10 by default.
    pub deaths_max: usize,
    /// The window in which deaths are counted. A minute by default.
    pub window: Duration,
}

impl Default for Restart {
    fn default() -> Self {
        Self {
            delay_first: Duration::from_millis(100),
            delay_max: Duration::from_secs(10),
            deaths_max: 10,
            window: Duration::from_secs(60),
        }
    }
}
