//! From the settings of a consumer to its running loop.

use std::{sync::Arc, time::Duration};

use estafette_core::{QueueSpec, ReceiveOptions, Receiver, Result, Retry, Transport};
use tokio::time::Instant;

use crate::{
    Consumer,
    context::Origin,
    heartbeat::Heartbeat,
    intake::Intake,
    pump::Pump,
    running::{Engine, Running},
    settling::Settling,
    stop::MemoryWatch,
};

/// Declares the queue and begins to receive from it, trying again while the engine cannot be reached.
///
/// Not a method of the consumer, whose layers cannot be looked at from two threads: a run may move between threads.
pub(crate) async fn open(
    transport: &Arc<dyn Transport>,
    spec: &QueueSpec,
    options: &ReceiveOptions,
) -> Result<Box<dyn Receiver>> {
    let pauses = Retry::exponential(Duration::from_millis(100)).delay_max(Duration::from_secs(5)).jitter(0.3);
    let mut failures = 0;
    loop {
        let opened = match transport.declare(spec).await {
            Ok(()) => transport.receiver(&spec.name, options.clone()).await,
            Err(error) => Err(error),
        };
        let error = match opened {
            Err(error) if error.is_retryable() => error,
            opened => return opened,
        };
        failures += 1;
        tracing::warn!(queue = %spec.name, error = error.report(), failures, "cannot start yet; trying again");
        tokio::time::sleep(pauses.delay(failures, fastrand::f64())).await;
    }
}

impl Consumer {
    pub(crate) fn into_pump(self, receiver: Box<dyn Receiver>) -> Pump {
        let queue = self.spec.name;
        let seconds = metrics::histogram!("estafette_handler_seconds", "queue" => queue.as_str().to_owned());
        let origin = Arc::new(Origin { transport: self.transport, queue: queue.clone() });
        let handler = self.layers.around(self.router);
        let engine = Engine { handler, origin, rules: self.rules, time_limit: self.time_limit, seconds };
        Pump {
            engine: Arc::new(engine),
            intake: Intake::new(receiver, self.options.unsettled_max),
            running: Running::new(self.concurrency),
            settling: Settling::new(queue),
            heartbeat: Heartbeat::new(self.options.lease),
            limits: self.limits,
            memory: MemoryWatch::new(self.limits.memory_bytes),
            grace: self.grace,
            handled: 0,
            settling_now: None,
            last_activity: Instant::now(),
            gave_way: Instant::now(),
        }
    }
}
