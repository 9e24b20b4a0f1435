//! The handlers that are running: one in the loop's own task, or several in tasks of their own.

use std::{future::Future, panic::AssertUnwindSafe, pin::Pin, sync::Arc, time::Duration};

use estafette_core::{Delivery, Outcome};
use futures_util::FutureExt;
use tokio::task::JoinSet;
use tracing::Instrument;

use crate::{
    Context, Handler,
    context::Origin,
    decide::{Fault, Rules, panic_text},
};

type Done = (Delivery, Outcome);

/// How long handlers that were ended may take to let go.
const ABORT_WAIT: Duration = Duration::from_millis(500);

/// What it takes to handle a delivery; the same for all of a run.
pub(crate) struct Engine {
    pub(crate) handler: Arc<dyn Handler>,
    pub(crate) origin: Arc<Origin>,
    pub(crate) rules: Rules,
    pub(crate) time_limit: Option<Duration>,
    pub(crate) seconds: metrics::Histogram,
}

impl Engine {
    /// Runs the handler for a delivery and decides what becomes of it. Dropped half way, it returns the delivery.
    async fn execute(self: Arc<Self>, delivery: Delivery) -> Done {
        if let Some(outcome) = self.rules.refuse(&delivery) {
            return (delivery, outcome);
        }
        let envelope = delivery.envelope();
        let attempt = delivery.attempt();
        let context = Context::new(Arc::clone(envelope), attempt, Arc::clone(&self.origin));
        let span = tracing::info_span!(
            "handle",
            queue = %self.origin.queue,
            topic = %envelope.topic,
            id = %envelope.id,
            attempt,
            traceparent = envelope.traceparent.as_deref(),
        );
        let started = std::time::Instant::now();
        // Called inside the future, so that a panic before the handler's first await is caught too.
        let call = async { self.handler.call(context.clone()).await };
        let guarded = AssertUnwindSafe(context.clone().scope(call)).catch_unwind().instrument(span);
        let result = match self.time_limit {
            None => Ok(guarded.await),
            Some(limit) => tokio::time::timeout(limit, guarded).await.map_err(|_elapsed| limit),
        };
        self.seconds.record(started.elapsed().as_secs_f64());
        let result = match result {
            Ok(Ok(Ok(verdict))) => Ok(verdict),
            Ok(Ok(Err(error))) => Err(Fault::Error(error)),
            Ok(Err(panic)) => Err(Fault::Panic(panic_text(&*panic))),
            Err(limit) => Err(Fault::TimedOut(limit)),
        };
        let outcome = self.rules.decide(attempt, result);
        (delivery, outcome)
    }
}

/// The handlers that are running.
pub(crate) enum Running {
    /// At most one, in the loop's own task: no hand-over to another thread and back.
    One(Option<Pin<Box<dyn Future<Output = Done> + Send>>>),
    /// Up to so many, each in a task.
    Many(JoinSet<Done>, usize),
}

impl Running {
    pub(crate) fn new(concurrency: usize) -> Self {
        if concurrency <= 1 { Self::One(None) } else { Self::Many(JoinSet::new(), concurrency) }
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Self::One(running) => usize::from(running.is_some()),
            Self::Many(tasks, _) => tasks.len(),
        }
    }

    /// How many more handlers may run.
    pub(crate) fn room(&self) -> usize {
        match self {
            Self::One(running) => usize::from(running.is_none()),
            Self::Many(tasks, max) => max.saturating_sub(tasks.len()),
        }
    }

    /// Begins to handle a delivery; returns it when it is done already.
    pub(crate) async fn start(&mut self, engine: &Arc<Engine>, delivery: Delivery) -> Option<Done> {
        let execution = Arc::clone(engine).execute(delivery);
        match self {
            Self::One(running) => {
                let mut execution = Box::pin(execution);
                match futures_util::poll!(execution.as_mut()) {
                    std::task::Poll::Ready(done) => Some(done),
                    std::task::Poll::Pending => {
                        *running = Some(execution);
                        None
                    }
                }
            }
            Self::Many(tasks, _) => {
                tasks.spawn(execution);
                None
            }
        }
    }

    /// The next delivery that is done. Waits for ever when none is running. Cancel safe.
    pub(crate) async fn next(&mut self) -> Done {
        match self {
            Self::One(running) => {
                let Some(execution) = running else { return std::future::pending().await };
                let done = execution.await;
                *running = None;
                done
            }
            Self::Many(tasks, _) => loop {
                match tasks.join_next().await {
                    Some(Ok(done)) => return done,
                    // Handlers' panics are caught inside; a cancelled task has returned its delivery.
                    Some(Err(error)) => tracing::error!(%error, "a handler's task failed"),
                    None => return std::future::pending().await,
                }
            },
        }
    }

    /// Another delivery that is done by now.
    pub(crate) fn try_next(&mut self) -> Option<Done> {
        match self {
            Self::One(_) => None,
            Self::Many(tasks, _) => tasks.try_join_next().and_then(Result::ok),
        }
    }

    /// Ends every handler where it is; the deliveries return. What was done by then is returned.
    ///
    /// A handler that occupies its thread cannot be ended: it is left behind, and its delivery returns when it lets go.
    pub(crate) async fn abort(&mut self) -> Vec<Done> {
        let mut done = Vec::new();
        match self {
            Self::One(running) => *running = None,
            Self::Many(tasks, _) => {
                tasks.abort_all();
                let ended = async {
                    while let Some(ended) = tasks.join_next().await {
                        done.extend(ended.ok());
                    }
                };
                if tokio::time::timeout(ABORT_WAIT, ended).await.is_err() {
                    tracing::warn!(
                        running = tasks.len(),
                        "handlers that occupy their threads are left behind"
                    );
                    tasks.detach_all();
                }
            }
        }
        done
    }
}
