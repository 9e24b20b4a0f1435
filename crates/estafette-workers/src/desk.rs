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
    frame::{Action, Body, Frame, Refusal},
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
    pub(crate) fn take(&mut self, id: Option<u64>, action: Action, body: &Body) {
        self.endpoint.counters.messages_in.count();
        let context = Context {
            from: self.from.clone(),
            action: action.clone(),
            worker: Worker::of(Arc::clone(&self.endpoint)),
        };
        let Some(mut running) = self.endpoint.listeners.call(context, body) else {
            return self.unheard(id, &action);
        };
        match poll_once(&mut running) {
            Poll::Ready(outcome) => settle(&*self.answers, id, &action, outcome),
            Poll::Pending => {
                let answers = Arc::clone(&self.answers);
                self.waiting.spawn(async move { settle(&*answers, id, &action, running.await) });
            }
        }
    }

    fn unheard(&self, id: Option<u64>, action: &Action) {
        self.endpoint.counters.messages_unheard.count();
        let who = &self.endpoint.address;
        tracing::debug!(%who, from = %self.from, action = action.as_str(), "nobody listens for this action");
        let error =
            Error::new(ErrorKind::NotFound, format!("nobody listens for {:?} there", action.as_str()));
        settle(&*self.answers, id, action, Err(error));
    }

    /// Whether so many listeners wait that nothing more should be taken.
    pub(crate) fn is_busy(&mut self) -> bool {
        while self.waiting.try_join_next().is_some() {}
        self.waiting.len() >= self.endpoint.limits.listeners_waiting_max
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

fn settle(answers: &dyn Answers, id: Option<u64>, action: &Action, outcome: Result<Body>) {
    match (id, outcome) {
        (Some(id), Ok(body)) => answers.answer(Frame::Reply { id, body }),
        (Some(id), Err(error)) => answers.answer(Frame::Failure { id, refusal: Refusal::from(&error) }),
        (None, Ok(_unwanted)) => {}
        (None, Err(error)) => {
            tracing::warn!(action = action.as_str(), error = %error.report(), "a listener failed");
        }
    }
}

/// Polls once without a waker: whoever takes a pending future over polls it again, with its own.
fn poll_once<T>(running: &mut BoxFuture<'static, T>) -> Poll<T> {
    Pin::new(running).poll(&mut TaskContext::from_waker(Waker::noop()))
}
