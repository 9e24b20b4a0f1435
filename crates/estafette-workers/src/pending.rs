//! Requests that wait for their replies, by id.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use estafette_core::{Error, ErrorKind, Result};
use tokio::sync::oneshot;

use crate::{Address, error::gone, frame::Body};

/// The requests of one connection that have no reply yet. Ids are never used twice within a connection.
#[derive(Debug)]
pub(crate) struct Pending {
    peer: Address,
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
    pub(crate) fn new(peer: Address, requests_max: usize) -> Self {
        Self { peer, requests_max, state: Mutex::default() }
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
}

impl Future for Ticket {
    type Output = Result<Body>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let outcome = std::task::ready!(Pin::new(&mut self.receiver).poll(context));
        Poll::Ready(match outcome {
            Ok(outcome) => outcome,
            Err(_dropped) => Err(gone(&self.pending.peer)),
        })
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.pending.lock().waiting.remove(&self.id);
    }
}
