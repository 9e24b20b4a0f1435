//! Traces and counters.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use estafette_consumer::Context;
use estafette_core::{Envelope, Outgoing, Retry};
use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};

use crate::stage::{Invoice, Notes, Order, Stage, order, queue};

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

async fn caused_by(mut cause: Envelope) -> (Envelope, Envelope) {
    let stage = Stage::new();
    cause.headers.insert("x", "not carried on").unwrap();
    stage.put(Outgoing::send(queue(), cause.clone())).await;
    let seen = Notes::new();
    let invoices = seen.clone();
    let consumer = stage
        .consumer()
        .subscribe::<Invoice>()
        .handle(|order: Order, context: Context| async move {
            // Also across an await.
            tokio::task::yield_now().await;
            let current = Context::current().unwrap();
            assert_eq!(current.envelope().id, context.envelope().id);
            current.publish(&Invoice { number: order.id }).await.map(|_| ())
        })
        .handle(move |_: Invoice, context: Context| {
            invoices.add(Envelope::clone(context.envelope()));
            std::future::ready(())
        });
    assert_eq!(consumer.run_until_empty().await.unwrap().acked, 2);
    (cause, seen.all().remove(0))
}

#[tokio::test(start_paused = true)]
async fn what_a_handler_publishes_carries_trace_and_conversation_on() {
    let mut cause = Envelope::of(&order(1)).unwrap();
    cause.traceparent = Some(PARENT.into());
    cause.correlation_id = Some("conversation".into());
    let (cause, effect) = caused_by(cause).await;
    assert_eq!(effect.correlation_id.as_deref(), Some("conversation"));
    assert_eq!(effect.causation_id.as_deref(), Some(&*cause.id.to_string()));
    let traceparent = effect.traceparent.unwrap();
    assert!(traceparent.starts_with(&PARENT[..36]) && traceparent.ends_with("-01"), "{traceparent}");
    assert_ne!(&*traceparent, PARENT);
    assert_eq!(effect.headers.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_message_without_a_conversation_begins_one() {
    let (cause, effect) = caused_by(Envelope::of(&order(1)).unwrap()).await;
    assert_eq!(effect.correlation_id.as_deref(), Some(&*cause.id.to_string()));
    assert!(effect.traceparent.is_some());
}

/// Keeps every counter by its name and labels, and how often each histogram was recorded.
#[derive(Default)]
struct Recording(Mutex<BTreeMap<String, Arc<AtomicU64>>>);

impl Recording {
    fn slot(&self, key: &Key) -> Arc<AtomicU64> {
        let labels: String =
            key.labels().map(|label| format!(" {}={}", label.key(), label.value())).collect();
        Arc::clone(self.0.lock().unwrap().entry(format!("{}{labels}", key.name())).or_default())
    }

    fn values(&self) -> Vec<(String, u64)> {
        let slots = self.0.lock().unwrap();
        let values = slots.iter().map(|(name, value)| (name.clone(), value.load(Ordering::SeqCst)));
        values.filter(|(_, value)| *value > 0).collect()
    }
}

/// Counts recordings rather than their values.
struct Recordings(Arc<AtomicU64>);

impl metrics::HistogramFn for Recordings {
    fn record(&self, _: f64) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Recorder for Recording {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.slot(key))
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(Arc::new(Recordings(self.slot(key))))
    }
}

#[test]
fn what_became_of_messages_is_counted_by_queue_and_outcome() {
    let recording = Recording::default();
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    metrics::with_local_recorder(&recording, || {
        runtime.block_on(async {
            let stage = Stage::with_orders(0..10).await;
            let handler = |order: Order, context: Context| async move {
                match order.id {
                    0 => Err("never"),
                    1 if context.attempt() == 1 => Err("once"),
                    _ => Ok(()),
                }
            };
            let retry = Retry::fixed(Duration::from_secs(1)).attempts_max(2);
            stage.consumer().retry(retry).handle(handler).run_until_empty().await.unwrap();
        });
    });
    let expected = [
        ("estafette_handler_seconds queue=billing", 12),
        ("estafette_settled_total queue=billing outcome=ack", 9),
        ("estafette_settled_total queue=billing outcome=reject", 1),
        ("estafette_settled_total queue=billing outcome=retry", 2),
    ];
    let expected: Vec<(String, u64)> = expected.map(|(name, count)| (name.to_owned(), count)).into();
    assert_eq!(recording.values(), expected);
}
