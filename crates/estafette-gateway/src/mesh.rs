//! The mesh: connections wherever they are, seen from outside of their core.
//!
//! [`Hub`] is all that the management API, the cluster and embedding programs know of the connections. Every
//! connection lives on one core thread; the hub turns a request into a message to that core's bounded inbox and awaits
//! the answer. It knows nothing about sockets, frames or scripts.

use std::{fmt, num::ParseIntError, str::FromStr, sync::Arc, time::Duration};

use bytes::Bytes;
use serde_json::{Map, Value};
use tokio::sync::{mpsc, oneshot};

use crate::{
    queues::Queues,
    stats::{Counters, Stats},
};

/// How long a request waits for a core's answer, its place in the inbox included.
const ANSWER_MAX: Duration = Duration::from_secs(4);

/// Requests one core's inbox holds.
pub(crate) const INBOX_MAX: usize = 4_096;

/// A connection's number: positive, below 2^63, never used again.
///
/// It says where the connection is, so that no directory is needed: 10 bits of node, 8 bits of core, and 45 bits that
/// count connections from a start that depends on the time, so that a restarted node does not repeat itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(u64);

impl ConnectionId {
    const SEQUENCE_BITS: u32 = 45;
    const CORE_BITS: u32 = 8;
    /// The largest node number.
    pub const NODE_MAX: u16 = (1 << 10) - 1;
    pub(crate) const CORES_MAX: usize = 1 << Self::CORE_BITS;

    pub(crate) fn new(node: u16, core: u8, sequence: u64) -> Self {
        let node = u64::from(node.min(Self::NODE_MAX)) << (Self::CORE_BITS + Self::SEQUENCE_BITS);
        let core = u64::from(core) << Self::SEQUENCE_BITS;
        Self(node | core | (sequence & ((1 << Self::SEQUENCE_BITS) - 1)))
    }

    /// The number, if it can be a connection's: 1 to 2^63 - 1.
    #[must_use]
    pub fn from_number(number: u64) -> Option<Self> {
        (1..=i64::MAX as u64).contains(&number).then_some(Self(number))
    }

    /// The number.
    #[must_use]
    pub fn number(self) -> u64 {
        self.0
    }

    /// The node that holds the connection.
    #[must_use]
    pub fn node(self) -> u16 {
        u16::try_from(self.0 >> (Self::CORE_BITS + Self::SEQUENCE_BITS)).unwrap_or(u16::MAX)
    }

    pub(crate) fn core(self) -> usize {
        usize::try_from((self.0 >> Self::SEQUENCE_BITS) & ((1 << Self::CORE_BITS) - 1)).unwrap_or(usize::MAX)
    }

    /// What is left without node and core: below 2^45, so a script's number holds it exactly.
    pub(crate) fn sequence(self) -> u64 {
        self.0 & ((1 << Self::SEQUENCE_BITS) - 1)
    }
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The text is not a connection's number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionIdError(Option<ParseIntError>);

impl fmt::Display for ConnectionIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a connection id: a decimal number from 1 to 2^63 - 1")
    }
}

impl std::error::Error for ConnectionIdError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.as_ref().map(|error| error as _)
    }
}

impl FromStr for ConnectionId {
    type Err = ConnectionIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(ConnectionIdError(None));
        }
        let number = text.parse().map_err(|error| ConnectionIdError(Some(error)))?;
        Self::from_number(number).ok_or(ConnectionIdError(None))
    }
}

/// Whether a payload is text or bytes; WebSocket connections are told, others make no difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// UTF-8.
    Text,
    /// Anything.
    Binary,
}

/// What is sent to a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload {
    /// The bytes; shared, not copied, by all who get them.
    pub data: Bytes,
    /// What they are.
    pub kind: Kind,
}

impl Payload {
    /// A text.
    #[must_use]
    pub fn text(text: impl Into<String>) -> Self {
        Self { data: Bytes::from(text.into()), kind: Kind::Text }
    }

    /// Bytes.
    #[must_use]
    pub fn binary(data: impl Into<Bytes>) -> Self {
        Self { data: data.into(), kind: Kind::Binary }
    }
}

/// What a backend may do to a connection.
#[derive(Debug, Clone, PartialEq)]
pub enum Call {
    /// Sets one value of the context, and wakes a `wait_context_value` of that key.
    SetContextValue(String, Value),
    /// Replaces the whole context.
    SetContext(Map<String, Value>),
    /// Joins channels.
    Subscribe(Vec<String>),
    /// Leaves channels.
    Unsubscribe(Vec<String>),
    /// Closes it.
    Close,
}

/// Why a send or a call had no effect.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum CallError {
    /// No such connection: it has ended, or never was.
    NoConnection,
    /// The connection does not read what it was sent before, and is being closed.
    SlowReader,
    /// The core has more to do than its inbox holds, or did not answer in time: try again later.
    Busy,
    /// The request breaks a limit or a rule; the sentence says which.
    Refused(String),
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoConnection => f.write_str("there is no such connection"),
            Self::SlowReader => f.write_str("the connection does not read what it is sent"),
            Self::Busy => f.write_str("the gateway is busy"),
            Self::Refused(reason) => f.write_str(reason),
        }
    }
}

impl std::error::Error for CallError {}

/// To how many connections a publish went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Published {
    /// Connections it was written or queued to.
    pub success: u64,
    /// Connections that could not take it.
    pub fail: u64,
}

impl std::ops::AddAssign for Published {
    fn add_assign(&mut self, other: Self) {
        self.success += other.success;
        self.fail += other.fail;
    }
}

/// A request to a core. Without an `answer`, the result only counts.
#[derive(Debug)]
pub(crate) enum Request {
    Send { id: ConnectionId, payload: Payload, answer: Option<oneshot::Sender<Result<(), CallError>>> },
    Publish { channel: Arc<str>, payload: Payload, answer: Option<oneshot::Sender<Published>> },
    Call { id: ConnectionId, call: Call, answer: oneshot::Sender<Result<(), CallError>> },
    IsLive { id: ConnectionId, answer: oneshot::Sender<bool> },
}

/// The connections of this node. Clones are the same hub.
#[derive(Debug, Clone)]
pub struct Hub {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    name: String,
    node: u16,
    inboxes: Vec<mpsc::Sender<Request>>,
    counters: Vec<Arc<Counters>>,
    queues: Queues,
}

impl Hub {
    pub(crate) fn new(
        name: String,
        node: u16,
        cores: Vec<(mpsc::Sender<Request>, Arc<Counters>)>,
        queues: Queues,
    ) -> Self {
        let (inboxes, counters) = cores.into_iter().unzip();
        Self { shared: Arc::new(Shared { name, node, inboxes, counters, queues }) }
    }

    /// Writes `payload` to a connection, or queues it there.
    ///
    /// # Errors
    /// [`CallError`]; nothing was written then.
    pub async fn send(&self, id: ConnectionId, payload: Payload) -> Result<(), CallError> {
        self.ask(id, |answer| Request::Send { id, payload, answer: Some(answer) }).await?
    }

    /// Writes `payload` to every connection that is subscribed to `channel`.
    ///
    /// A core that does not answer in time counts as one failure.
    pub async fn publish(&self, channel: &str, payload: Payload) -> Published {
        let channel: Arc<str> = channel.into();
        let mut answers = Vec::with_capacity(self.shared.inboxes.len());
        for inbox in &self.shared.inboxes {
            let (answer, answered) = oneshot::channel();
            let request = Request::Publish {
                channel: Arc::clone(&channel),
                payload: payload.clone(),
                answer: Some(answer),
            };
            answers.push((inbox.try_send(request), answered));
        }
        let mut published = Published::default();
        for (sent, answered) in answers {
            let answer = if sent.is_ok() { within(answered).await } else { Err(CallError::Busy) };
            published += answer.unwrap_or(Published { success: 0, fail: 1 });
        }
        published
    }

    /// Does `call` to a connection.
    ///
    /// # Errors
    /// [`CallError`]; the call had no effect then.
    pub async fn call(&self, id: ConnectionId, call: Call) -> Result<(), CallError> {
        self.ask(id, |answer| Request::Call { id, call, answer }).await?
    }

    /// Whether the connection is open.
    pub async fn is_live(&self, id: ConnectionId) -> bool {
        self.ask(id, |answer| Request::IsLive { id, answer }).await.unwrap_or(false)
    }

    /// The node's name, as events and `/v1/nodes` show it.
    #[must_use]
    pub fn node(&self) -> &str {
        &self.shared.name
    }

    /// The queues that scripts push to.
    #[must_use]
    pub fn queues(&self) -> &Queues {
        &self.shared.queues
    }

    /// What the connections counted since the start, all cores together.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.shared.counters.iter().map(|counters| counters.read()).sum()
    }

    /// The counters of one core.
    pub(crate) fn counters(&self, core: usize) -> Arc<Counters> {
        self.shared.counters.get(core).cloned().unwrap_or_default()
    }

    async fn ask<T>(
        &self,
        id: ConnectionId,
        request: impl FnOnce(oneshot::Sender<T>) -> Request,
    ) -> Result<T, CallError> {
        if id.node() != self.shared.node {
            return Err(CallError::NoConnection);
        }
        let inbox = self.shared.inboxes.get(id.core()).ok_or(CallError::NoConnection)?;
        let (answer, answered) = oneshot::channel();
        let request = request(answer);
        match tokio::time::timeout(ANSWER_MAX, inbox.send(request)).await {
            Ok(Ok(())) => within(answered).await,
            Ok(Err(_)) => Err(CallError::NoConnection),
            Err(_) => Err(CallError::Busy),
        }
    }

    /// Hands `payload` to the core of `id` without waiting: for cores themselves, which must not wait for each other.
    pub(crate) fn forward(&self, id: ConnectionId, payload: Payload) -> Result<(), CallError> {
        if id.node() != self.shared.node {
            return Err(CallError::NoConnection);
        }
        let inbox = self.shared.inboxes.get(id.core()).ok_or(CallError::NoConnection)?;
        inbox.try_send(Request::Send { id, payload, answer: None }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => CallError::Busy,
            mpsc::error::TrySendError::Closed(_) => CallError::NoConnection,
        })
    }

    /// Hands a publish to another core without waiting.
    pub(crate) fn forward_publish(&self, core: usize, channel: Arc<str>, payload: Payload) -> bool {
        let request = Request::Publish { channel, payload, answer: None };
        self.shared.inboxes.get(core).is_some_and(|inbox| inbox.try_send(request).is_ok())
    }
}

async fn within<T>(answered: oneshot::Receiver<T>) -> Result<T, CallError> {
    match tokio::time::timeout(ANSWER_MAX, answered).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(_)) => Err(CallError::NoConnection),
        Err(_) => Err(CallError::Busy),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_says_where_its_connection_is() {
        let id = ConnectionId::new(1_023, 255, (1 << 45) - 1);
        assert_eq!((id.node(), id.core(), id.sequence()), (1_023, 255, (1 << 45) - 1));
        assert_eq!(id.number(), i64::MAX as u64);
        assert_eq!(id.to_string().parse(), Ok(id));
    }

    #[test]
    fn text_that_is_no_id_is_refused() {
        for text in
            ["", "0", "-1", "+1", "1.0", "9223372036854775808", "99999999999999999999", "user_1", " 1"]
        {
            assert!(text.parse::<ConnectionId>().is_err(), "{text:?}");
        }
        assert_eq!(
            "9007199254740993".parse::<ConnectionId>().map(ConnectionId::number),
            Ok(9_007_199_254_740_993)
        );
    }
}
