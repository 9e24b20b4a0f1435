//! What can be set about a consumer, and the ways to run it.

use std::{future::Future, num::NonZeroUsize, sync::Arc, time::Duration};

use estafette_core::{
    BoxError, Error, ErrorKind, Lifetime, Message, Pattern, QueueName, QueueSpec, ReceiveOptions, Result,
    Retry, Transport,
};
use tower_layer::Layer;
use tower_service::Service;

use crate::{
    Context, IntoVerdict, StopReason, Summary, Verdict,
    decide::Rules,
    handler::{Answering, Typed, Untyped},
    router::{BoxHandler, Layers, Router},
    start::open,
    stop::{Asked, Limits, Ready, Trigger, either},
};

/// Takes messages from one queue and hands them to handlers.
///
/// Made by `Bus::consumer`, or here from any transport. Settings are collected first; a mistake in one is reported when the
/// consumer runs.
#[must_use = "a consumer does nothing until it runs"]
pub struct Consumer {
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) spec: QueueSpec,
    pub(crate) router: Router,
    pub(crate) layers: Layers,
    pub(crate) rules: Rules,
    pub(crate) limits: Limits,
    pub(crate) options: ReceiveOptions,
    pub(crate) concurrency: usize,
    pub(crate) time_limit: Option<Duration>,
    pub(crate) grace: Duration,
    asked: Option<Asked>,
    when_ready: Option<Ready>,
    mistake: Option<Error>,
}

impl Consumer {
    /// A consumer of the durable queue `queue`: the receiver key.
    pub fn new<N>(transport: Arc<dyn Transport>, queue: N) -> Self
    where
        N: TryInto<QueueName>,
        Error: From<N::Error>,
    {
        match queue.try_into() {
            Ok(name) => Self::of(transport, QueueSpec::durable(name)),
            Err(error) => {
                let mut consumer = Self::temporary(transport);
                consumer.mistake = Some(error.into());
                consumer
            }
        }
    }

    /// A consumer without a key: its queue is temporary, gets what is published while it runs, and goes away with it.
    pub fn temporary(transport: Arc<dyn Transport>) -> Self {
        Self::of(transport, QueueSpec::temporary())
    }

    fn of(transport: Arc<dyn Transport>, spec: QueueSpec) -> Self {
        Self {
            transport,
            spec,
            router: Router::default(),
            layers: Layers::default(),
            rules: Rules { retry: Retry::default(), by_error: None },
            limits: Limits::default(),
            options: ReceiveOptions::default(),
            concurrency: 1,
            time_limit: None,
            grace: Duration::from_secs(30),
            asked: None,
            when_ready: None,
            mistake: None,
        }
    }

    /// The queue it takes messages from, as it declares it when it runs.
    #[must_use]
    pub fn queue(&self) -> &QueueSpec {
        &self.spec
    }

    /// Subscribes the queue to the topic of `M`.
    pub fn subscribe<M: Message>(mut self) -> Self {
        self.spec = self.spec.subscribe(Pattern::from(&M::TOPIC));
        self
    }

    /// Subscribes the queue to a pattern such as `order.*`.
    pub fn subscribe_to<P>(mut self, pattern: P) -> Self
    where
        P: TryInto<Pattern>,
        Error: From<P::Error>,
    {
        match pattern.try_into() {
            Ok(pattern) => self.spec = self.spec.subscribe(pattern),
            Err(error) => self.mistake = self.mistake.or(Some(error.into())),
        }
        self
    }

    /// Handles messages of type `M`. Several types can share the queue, each with its handler; a message no handler takes
    /// becomes a dead letter, and so does one whose body does not decode.
    pub fn handle<M, F, Fut>(mut self, handler: F) -> Self
    where
        M: Message,
        F: Fn(M, Context) -> Fut + Send + Sync + 'static,
        Fut: Future + Send + 'static,
        Fut::Output: IntoVerdict,
    {
        self.router.add(M::TOPIC, Typed::<M, F>::new(handler));
        self
    }

    /// Handles messages of every type that has no handler of its own, as they are.
    pub fn handle_any<F, Fut>(mut self, handler: F) -> Self
    where
        F: Fn(Context) -> Fut + Send + Sync + 'static,
        Fut: Future + Send + 'static,
        Fut::Output: IntoVerdict,
    {
        self.router.add_any(Untyped(handler));
        self
    }

    /// Answers requests of type `M`: what the handler returns is sent to whoever asked, an error too.
    pub fn reply<M, R, E, F, Fut>(mut self, handler: F) -> Self
    where
        M: Message,
        R: Message,
        E: Into<BoxError>,
        F: Fn(M, Context) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<R, E>> + Send + 'static,
    {
        self.router.add(M::TOPIC, Answering::<M, F>::new(handler, Arc::clone(&self.transport)));
        self
    }

    /// Wraps the handlers in a tower layer. The layer added first is outermost.
    pub fn layer<L>(mut self, layer: L) -> Self
    where
        L: Layer<BoxHandler> + Send + 'static,
        L::Service: Service<Context, Response = Verdict> + Clone + Send + Sync + 'static,
        <L::Service as Service<Context>>::Error: Into<BoxError>,
        <L::Service as Service<Context>>::Future: Send + 'static,
    {
        self.layers.push(layer);
        self
    }

    /// How many messages are handled at once; 1 by default, 0 counts as 1. With 1 handlers run in the task that runs the
    /// consumer, with more each in a task of its own.
    pub fn concurrency(mut self, handlers: usize) -> Self {
        self.concurrency = NonZeroUsize::new(handlers).map_or(1, NonZeroUsize::get);
        self
    }

    /// Handles messages of one partition key strictly one after the other, retries included, whatever the concurrency and
    /// the number of consumers. Refuses to run on a transport that cannot keep that order.
    pub fn ordered_by_key(mut self) -> Self {
        self.options.ordered_by_key = true;
        self
    }

    /// At most so many unsettled deliveries at once; 1,000 by default. How many are really taken ahead follows from how
    /// quickly they are handled: none while handlers take long.
    pub fn prefetch(mut self, deliveries: usize) -> Self {
        self.options.unsettled_max = deliveries.max(1);
        self
    }

    /// How long a delivery stays this consumer's without a sign of life; 30 seconds by default. While a handler runs its
    /// lease is extended.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.options.lease = lease.max(Duration::from_millis(1));
        self
    }

    /// How often and how long after a failure a message is tried again; [`Retry::default`] by default.
    pub fn retry(mut self, retry: Retry) -> Self {
        self.rules.retry = retry;
        self
    }

    /// Decides by the error and the attempt what becomes of the message; `None` leaves it to the retry policy.
    pub fn retry_by_error(
        mut self,
        policy: impl Fn(&BoxError, u32) -> Option<Verdict> + Send + Sync + 'static,
    ) -> Self {
        self.rules.by_error = Some(Arc::new(policy));
        self
    }

    /// How long a handler may take; longer is a failed attempt. No limit by default.
    pub fn time_limit(mut self, limit: Duration) -> Self {
        self.time_limit = Some(limit);
        self
    }

    /// How long handlers may go on when the consumer is asked to stop; 30 seconds by default.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// Stops after so many failed attempts: those that end as a retry or as a dead letter.
    pub fn failures_max(mut self, failures: u64) -> Self {
        self.limits.failures = Some(failures.max(1));
        self
    }

    /// Stops when the process occupies so many bytes of memory, to be started again by its supervisor. Linux only.
    pub fn memory_max(mut self, bytes: u64) -> Self {
        self.limits.memory_bytes = Some(bytes);
        self
    }

    /// Stops when nothing came and nothing was handled for so long.
    pub fn idle_max(mut self, idle: Duration) -> Self {
        self.limits.idle = Some(idle);
        self
    }

    /// Stops after so many messages were handled, whatever became of them.
    pub fn count_max(mut self, count: u64) -> Self {
        self.limits.count = Some(count);
        self
    }

    /// Stops when the queue holds no work: nothing ready, held by anyone or waiting for a retry.
    pub fn stop_when_empty(mut self) -> Self {
        self.limits.until_empty = true;
        self
    }

    /// Stops when `future` ends, besides what else may stop it.
    pub fn stop_when(mut self, future: impl Future<Output = ()> + Send + 'static) -> Self {
        let asked: Asked = Box::pin(future);
        self.asked = Some(match self.asked.take() {
            Some(before) => either(before, asked),
            None => asked,
        });
        self
    }

    /// Calls `ready` when the queue is declared and messages can come: the time to tell a supervisor so.
    pub fn when_ready(mut self, ready: impl FnOnce() + Send + 'static) -> Self {
        self.when_ready = Some(Box::new(ready));
        self
    }

    /// Runs until SIGTERM or SIGINT, or until a limit set before is reached.
    ///
    /// The queue is declared first. While the engine cannot be reached the consumer waits and tries again. When asked to
    /// stop it takes no more, lets handlers end within the grace period and puts the rest back; a second signal ends the
    /// grace period.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`] for a mistake in the settings, [`ErrorKind::Unsupported`] for what the transport cannot
    /// do, and those errors of the transport that trying again does not cure.
    pub async fn run(self) -> Result<Summary> {
        self.run_with(Trigger::signals()?).await
    }

    /// Runs until `count` messages were handled.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run).
    pub async fn run_for_count(self, count: u64) -> Result<Summary> {
        self.count_max(count).run().await
    }

    /// Runs for `time`.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run).
    pub async fn run_for(self, time: Duration) -> Result<Summary> {
        self.run_with(Trigger::signals()?.or_after(time)).await
    }

    /// Runs until the queue holds no work.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run).
    pub async fn run_until_empty(self) -> Result<Summary> {
        self.stop_when_empty().run().await
    }

    /// Runs until `future` ends, whatever signals come.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run).
    pub async fn run_until(self, future: impl Future<Output = ()> + Send + 'static) -> Result<Summary> {
        self.stop_when(future).run_with(Trigger::default()).await
    }

    async fn run_with(mut self, mut trigger: Trigger) -> Result<Summary> {
        self.check()?;
        if let Some(asked) = self.asked.take() {
            trigger = trigger.or_when(asked);
        }
        if self.limits.count == Some(0) {
            return Ok(Summary { reason: StopReason::Count, ..Summary::new() });
        }
        let receiver = tokio::select! {
            receiver = open(&self.transport, &self.spec, &self.options) => receiver?,
            reason = trigger.fired() => return Ok(Summary { reason, ..Summary::new() }),
        };
        if let Some(ready) = self.when_ready.take() {
            ready();
        }
        self.into_pump(receiver).run(trigger).await
    }

    fn check(&mut self) -> Result<()> {
        if let Some(mistake) = self.mistake.take() {
            return Err(mistake);
        }
        if self.router.is_empty() {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                "the consumer has no handler: call handle or handle_any",
            ));
        }
        let guarantees = self.transport.guarantees();
        if self.options.ordered_by_key && guarantees.order < estafette_core::Order::Key {
            let sentence =
                format!("ordered_by_key needs order=key; this transport keeps order={}", guarantees.order);
            return Err(Error::new(ErrorKind::Unsupported, sentence));
        }
        if self.spec.lifetime == Lifetime::Temporary && !guarantees.temporary_queues.is_some() {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "this transport has no temporary queues: name the queue",
            ));
        }
        Ok(())
    }
}
