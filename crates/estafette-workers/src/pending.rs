//! Requests that wait for their replies, by id.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};

use estafette_core::{Error, ErrorKind, Result};
use tokio::sync::oneshot;

use crate::{Address, Limits, error::gone, frame::Body, patience::Patience};

/// The requests of one connection that have no reply yet. Ids are never used twice within a connection.
#[derive(Debug)]
pub(crate) struct Pending {
    peer: Address,
    patience: Patience,
    requests_max: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    id_last: u64,
    waiting: HashMap<u64, oneshot::Sender<Result<Body>>>,
    closed: bool,
}

impl Pending {
    pub(crate) fn new(peer: Address, limits: &Limits) -> Self {
        let patience = Patience::new(limits.looking_max);
        Self { peer, patience, requests_max: limits.requests_max, state: Mutex::default() }
    }

    /// Who is asked.
    pub(crate) fn peer(&self) -> &Address {
        &self.peer
    }

    /// A place to wait for one reply.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unavailable`] when too many requests have no reply yet.
    pub(crate) fn register(self: &Arc<Self>) -> Result<Ticket> {
        let (sender, receiver) = oneshot::channel();
        let mut state = self.lock();
        if state.waiting.len() >= self.requests_max {
            let sentence = format!("{} requests to {} have no reply yet", self.requests_max, self.peer);
            return Err(Error::new(ErrorKind::Unavailable, sentence));
        }
        state.id_last += 1;
        let id = state.id_last;
        if !state.closed {
            state.waiting.insert(id, sender);
        }
        Ok(Ticket { id, receiver, pending: Arc::clone(self) })
    }

    /// Hands `outcome` to whoever asked; whether somebody still waited.
    pub(crate) fn resolve(&self, id: u64, outcome: Result<Body>) -> bool {
        let waiting = self.lock().waiting.remove(&id);
        waiting.is_some_and(|sender| sender.send(outcome).is_ok())
    }

    /// No reply will come any more: everybody who waits is told.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        // Dropping the senders is what tells them.
        state.waiting.clear();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The reply to one request, when it comes. Dropping it gives up waiting.
#[derive(Debug)]
pub(crate) struct Ticket {
    id: u64,
    receiver: oneshot::Receiver<Result<Body>>,
    pending: Arc<Pending>,
}

impl Ticket {
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// Waits for the reply, once the request is on its way.
    ///
    /// # Errors
    ///
    /// The listener's, or [`ErrorKind::Closed`] when the peer went away.
    pub(crate) async fn reply(mut self) -> Result<Body> {
        let pending = Arc::clone(&self.pending);
        match pending.patience.look(|context| self.poll_reply(context)).await {
            Some(reply) => reply,
            None => std::future::poll_fn(|context| self.poll_reply(context)).await,
        }
    }

    fn poll_reply(&mut self, context: &mut Context<'_>) -> Poll<Result<Body>> {
        let outcome = ready!(Pin::new(&mut self.receiver).poll(context));
        Poll::Ready(outcome.unwrap_or_else(|_dropped| Err(gone(&self.pending.peer))))
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.pending.lock().waiting.remove(&self.id);
    }
}
