//! Layers around the handlers.

use std::{
    num::NonZeroUsize,
    task::{Context as TaskContext, Poll},
    time::Duration,
};

use estafette_consumer::{Context, Deduplicate, Verdict};
use estafette_core::{Envelope, Outgoing, Reason, Retry};
use tower_layer::{Layer, layer_fn};
use tower_service::Service;

use crate::stage::{Counter, Notes, Order, Stage, order, queue};

/// A user's own: notes when a message passes, and keeps some from the handler.
#[derive(Clone)]
struct Gate {
    name: &'static str,
    notes: Notes<&'static str>,
}

#[derive(Clone)]
struct GateService<S> {
    gate: Gate,
    inner: S,
}

impl<S> Layer<S> for Gate {
    type Service = GateService<S>;

    fn layer(&self, inner: S) -> GateService<S> {
        GateService { gate: self.clone(), inner }
    }
}

impl<S> Service<Context> for GateService<S>
where
    S: Service<Context, Response = Verdict>,
    S::Future: Send + 'static,
    S::Error: 'static,
{
    type Response = Verdict;
    type Error = S::Error;
    type Future = futures_util::future::BoxFuture<'static, Result<Verdict, S::Error>>;

    fn poll_ready(&mut self, task: &mut TaskContext<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(task)
    }

    fn call(&mut self, context: Context) -> Self::Future {
        self.gate.notes.add(self.gate.name);
        if context.header("tenant") == Some("blocked") {
            return Box::pin(async { Ok(Verdict::reject("tenant is blocked")) });
        }
        Box::pin(self.inner.call(context))
    }
}

#[tokio::test(start_paused = true)]
async fn the_layer_added_first_is_outermost_and_may_decide_itself() {
    let stage = Stage::with_orders([1]).await;
    let mut envelope = Envelope::of(&order(2)).unwrap();
    envelope.headers.insert("tenant", "blocked").unwrap();
    stage.put(Outgoing::send(queue(), envelope)).await;
    let notes = Notes::new();
    let gate = |name| Gate { name, notes: notes.clone() };
    let handled = notes.clone();
    let handler = move |_: Order, _| {
        handled.add("handler");
        std::future::ready(())
    };
    let consumer = stage.consumer().layer(gate("outer")).layer(gate("inner")).handle(handler);
    let summary = consumer.run_until_empty().await.unwrap();
    assert_eq!((summary.acked, summary.dead), (1, 1));
    assert_eq!(notes.all(), ["outer", "inner", "handler", "outer"]);
    let letter = stage.dead_letter().await;
    assert_eq!((letter.reason, &*letter.error), (Reason::Rejected, "tenant is blocked"));
}

#[tokio::test(start_paused = true)]
async fn towers_own_time_limit_is_a_failed_attempt() {
    let stage = Stage::with_orders([1]).await;
    let handler = |_: Order, _| tokio::time::sleep(Duration::from_secs(10));
    let consumer = stage
        .consumer()
        .layer(tower::timeout::TimeoutLayer::new(Duration::from_secs(1)))
        .retry(Retry::never())
        .concurrency(4)
        .handle(handler);
    assert_eq!(consumer.run_until_empty().await.unwrap().dead, 1);
    assert_eq!(stage.dead_letter().await.error, "request timed out");
}

#[tokio::test(start_paused = true)]
async fn a_message_handled_before_is_acknowledged_without_its_handler() {
    let stage = Stage::new();
    let again = Envelope::of(&order(1)).unwrap();
    for _ in 0..3 {
        stage.put(Outgoing::send(queue(), again.clone())).await;
    }
    stage.send(&order(1)).await;
    let calls = Counter::default();
    let seen = calls.clone();
    let handler = move |_: Order, context: Context| {
        seen.raise();
        // A failure is not remembered as handled.
        std::future::ready(if context.attempt() == 1 { Err("once more") } else { Ok(()) })
    };
    let consumer = stage
        .consumer()
        .layer(Deduplicate::new(NonZeroUsize::new(100).unwrap()))
        .retry(Retry::fixed(Duration::from_secs(1)).attempts_max(3))
        .handle(handler);
    let summary = consumer.run_until_empty().await.unwrap();
    assert_eq!((summary.acked, summary.dead), (4, 0));
    // Four fail at first; then of the three with one id only the first is handled again.
    assert_eq!(calls.value(), 6);
}

#[tokio::test(start_paused = true)]
async fn only_so_many_ids_are_remembered() {
    let stage = Stage::new();
    let envelopes: Vec<Envelope> = (0..3).map(|id| Envelope::of(&order(id)).unwrap()).collect();
    let calls = Counter::default();
    let layer = Deduplicate::new(NonZeroUsize::new(2).unwrap());
    // The third makes the first forgotten.
    for index in [0, 1, 0, 2, 1, 0] {
        stage.put(Outgoing::send(queue(), envelopes[index].clone())).await;
    }
    let seen = calls.clone();
    let handler = move |_: Order, _| {
        seen.raise();
        std::future::ready(())
    };
    stage.consumer().layer(layer).handle(handler).run_until_empty().await.unwrap();
    assert_eq!(calls.value(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_layer_that_panics_loses_no_message() {
    let stage = Stage::with_orders([1]).await;
    let layer =
        layer_fn(|inner| tower::util::MapRequest::new(inner, |_: Context| -> Context { panic!("bug") }));
    let consumer = stage.consumer().layer(layer).retry(Retry::never()).handle(|_: Order, _| async {});
    assert_eq!(consumer.run_until_empty().await.unwrap().dead, 1);
    assert_eq!(stage.dead_letter().await.error, "the handler panicked: bug");
}
