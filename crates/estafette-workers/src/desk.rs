//! Handles the messages of one connection: starts the listeners and sends their answers back.

use std::{
    future::Future as _,
    pin::Pin,
    sync::Arc,
    task::{Context as TaskContext, Poll, Waker},
};

use estafette_core::{Error, ErrorKind, Result};
use futures_util::future::BoxFuture;
use tokio::task::JoinSet;

use crate::{
    Address, Context, Worker,
    endpoint::Endpoint,
    frame::{Body, Frame, Refusal, View},
};

/// Where answers go.
pub(crate) trait Answers: Send + Sync {
    /// Sends one answer; what becomes of it when the asker has gone is nobody's concern any more.
    fn answer(&self, frame: Frame);
}

/// Handles the messages that come from one peer, in their order as long as listeners do not wait.
///
/// A listener runs within the task that reads until it waits for something; only then it gets a task of its own. So the usual
/// short listener costs no task, and a long one does not hold up the messages behind it.
pub(crate) struct Desk {
    endpoint: Arc<Endpoint>,
    from: Address,
    answers: Arc<dyn Answers>,
    waiting: JoinSet<()>,
}

impl Desk {
    pub(crate) fn new(endpoint: Arc<Endpoint>, from: Address, answers: Arc<dyn Answers>) -> Self {
        Self { endpoint, from, answers, waiting: JoinSet::new() }
    }

    /// Starts the listeners of a message, or of a request when it has an id.
    pub(crate) fn take(&mut self, message: View<'_>) {
        self.endpoint.counters.messages_in.count();
        let Some(listeners) = self.endpoint.listeners.of(message.action) else {
            return self.unheard(message);
        };
        let context = Context {
            from: self.from.clone(),
            action: Arc::clone(&listeners.action),
            worker: Worker::of(Arc::clone(&self.endpoint)),
        };
        let mut running = listeners.call(context, message);
        let (id, action) = (message.id, &listeners.action);
        let bytes_max = self.endpoint.limits.frame_bytes_max;
        match poll_once(&mut running) {
            Poll::Ready(outcome) => {
                settle(&*self.answers, id, action, outcome.and_then(|body| fits(body, bytes_max)))
            }
            Poll::Pending => {
                let (answers, action) = (Arc::clone(&self.answers), Arc::clone(action));
                self.waiting.spawn(async move {
                    let outcome = running.await.and_then(|body| fits(body, bytes_max));
                    settle(&*answers, id, &action, outcome);
                });
            }
        }
    }

    fn unheard(&self, message: View<'_>) {
        self.endpoint.counters.messages_unheard.count();
        let (who, action) = (&self.endpoint.address, message.action);
        tracing::debug!(%who, from = %self.from, action, "nobody listens for this action");
        let error = Error::new(ErrorKind::NotFound, format!("nobody listens for {action:?} there"));
        if message.id.is_some() {
            settle(&*self.answers, message.id, action, Err(error));
        }
    }

    /// Whether so many listeners wait that nothing more should be taken.
    pub(crate) fn is_busy(&mut self) -> bool {
        let max = self.endpoint.limits.listeners_waiting_max;
        if self.waiting.len() < max {
            return false;
        }
        while self.waiting.try_join_next().is_some() {}
        self.waiting.len() >= max
    }

    /// Waits until one of the listeners that wait has ended.
    pub(crate) async fn one_ended(&mut self) {
        // Panics are caught where listeners are called, so how the task ended says nothing.
        drop(self.waiting.join_next().await);
    }

    /// Waits until every listener has ended.
    pub(crate) async fn all_ended(&mut self) {
        while self.waiting.join_next().await.is_some() {}
    }
}

/// Refuses a reply that the asker would drop the connection for.
fn fits(body: Body, bytes_max: usize) -> Result<Body> {
    // The head within the length: kind, id and form.
    let bytes = body.data.len() + 10;
    if bytes <= bytes_max {
        return Ok(body);
    }
    Err(Error::new(ErrorKind::TooLarge, format!("a reply of {bytes} bytes; the limit is {bytes_max}")))
}

fn settle(answers: &dyn Answers, id: Option<u64>, action: &str, outcome: Result<Body>) {
    match (id, outcome) {
        (Some(id), Ok(body)) => answers.answer(Frame::Reply { id, body }),
        (Some(id), Err(error)) => answers.answer(Frame::Failure { id, refusal: Refusal::from(&error) }),
        (None, Ok(_unwanted)) => {}
        (None, Err(error)) => {
            tracing::warn!(action, error = %error.report(), "a listener failed");
        }
    }
}

/// Polls once without a waker: whoever takes a pending future over polls it again, with its own.
fn poll_once<T>(running: &mut BoxFuture<'static, T>) -> Poll<T> {
    Pin::new(running).poll(&mut TaskContext::from_waker(Waker::noop()))
}
