//! What publishing shows to whoever looks: a span for each call and counters of what became of the messages. The consumer
//! shows the other half; `docs/observability.md` lists both.

use estafette_core::{Outgoing, Receipt, Result};
use tracing::Span;

/// The span around one call. Its messages carry the same `traceparent` to their handlers' spans.
pub(crate) fn publishing(batch: &[Outgoing]) -> Span {
    let Some(first) = batch.first() else { return Span::none() };
    let envelope = &first.envelope;
    tracing::info_span!(
        "publish",
        messages = batch.len(),
        topic = %envelope.topic,
        id = %envelope.id,
        traceparent = envelope.traceparent.as_deref(),
    )
}

/// Counts what became of the messages of one call.
pub(crate) fn count(results: &[Result<Receipt>]) {
    let (mut stored, mut unrouted, mut failed) = (0, 0, 0);
    for result in results {
        match result {
            Ok(receipt) if receipt.routing.is_routed() => stored += 1,
            Ok(_) => unrouted += 1,
            Err(_) => failed += 1,
        }
    }
    for (outcome, count) in [("stored", stored), ("unrouted", unrouted), ("failed", failed)] {
        if count > 0 {
            metrics::counter!("estafette_published_total", "outcome" => outcome).increment(count);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    };

    use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};

    use crate::{Bus, QueueSpec};

    /// Keeps every counter by its only label.
    #[derive(Default)]
    struct Recording(Mutex<Vec<(String, Arc<AtomicU64>)>>);

    impl Recorder for Recording {
        fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

        fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
            let labels: String = key.labels().map(metrics::Label::value).collect();
            let slot = Arc::new(AtomicU64::new(0));
            self.0.lock().unwrap().push((format!("{} {labels}", key.name()), Arc::clone(&slot)));
            Counter::from_arc(slot)
        }

        fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
            Gauge::noop()
        }

        fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
            Histogram::noop()
        }
    }

    #[test]
    fn what_is_published_is_counted_by_what_became_of_it() {
        let recording = Recording::default();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        metrics::with_local_recorder(&recording, || {
            runtime.block_on(async {
                let bus = Bus::connect("memory:").await.unwrap();
                let queue = QueueSpec::durable("q".try_into().unwrap());
                bus.declare(&queue.subscribe("known".try_into().unwrap())).await.unwrap();
                bus.publish_body("known", "1").await.unwrap();
                bus.publish_body("unknown", "2").await.unwrap();
                bus.publish_body("unknown", "3").require_queue().await.unwrap_err();
            });
        });
        let counted: Vec<_> = recording.0.into_inner().unwrap();
        let counted: Vec<_> =
            counted.iter().map(|(name, count)| (name.as_str(), count.load(Ordering::SeqCst))).collect();
        let of =
            ["stored", "unrouted", "failed"].map(|outcome| format!("estafette_published_total {outcome}"));
        assert_eq!(counted, of.iter().map(|name| (name.as_str(), 1)).collect::<Vec<_>>());
    }
}
