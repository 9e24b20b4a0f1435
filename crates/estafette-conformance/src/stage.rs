//! Where one behaviour plays: a handle, names that nothing else uses, and the tidying up afterwards.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use estafette_core::{
    Durability, Envelope, ErrorKind, Guarantees, MessageId, Outgoing, Pattern, QueueName, QueueSpec,
    QueueStatus, ReceiveOptions, Receiver, Topic, Transport,
};
use tokio::time::Instant;

use crate::{
    Options,
    subject::Subject,
    violation::{Check, Violation, ensure},
};

tokio::task_local! {
    /// How long something that must happen is waited for in this run.
    pub(crate) static PATIENCE: Duration;
}

/// How long something that must happen is waited for; see [`Options::patience`].
pub(crate) fn patience() -> Duration {
    PATIENCE.try_with(|patience| *patience).unwrap_or(Options::PATIENCE)
}

/// A task of a check's own, which is to be as patient as the check.
pub(crate) fn patiently<F: Future>(task: F) -> impl Future<Output = F::Output> {
    PATIENCE.scope(patience(), task)
}

/// A lease that does not end while a behaviour runs.
pub(crate) const LEASE_LONG: Duration = Duration::from_secs(300);

/// How long a queue is watched when nothing must come.
pub(crate) const MOMENT: Duration = Duration::from_millis(150);

/// What clocks of different grain may disagree about.
pub(crate) const GRAIN: Duration = Duration::from_millis(5);

/// Whether a behaviour has the process, or only the transport, to itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Surroundings {
    /// Nothing else runs on this runtime.
    Alone,
    /// Other behaviours run at the same time.
    Shared,
}

pub(crate) struct Stage {
    /// The behaviour's first handle.
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) subject: Arc<Subject>,
    pub(crate) surroundings: Surroundings,
    /// In every name made here.
    tag: String,
    made: Mutex<Vec<QueueName>>,
    /// Closed at the end, the first handle too.
    opened: Mutex<Vec<Arc<dyn Transport>>>,
}

impl Stage {
    pub(crate) async fn open(subject: Arc<Subject>, surroundings: Surroundings) -> Check<Self> {
        let transport = subject.connect().await?;
        let opened = Mutex::new(vec![Arc::clone(&transport)]);
        let tag = MessageId::new().to_string();
        Ok(Self { transport, subject, surroundings, tag, made: Mutex::default(), opened })
    }

    pub(crate) fn guarantees(&self) -> Guarantees {
        self.transport.guarantees()
    }

    /// Another handle to the same store: as another program's where the transport is shared, else the same once more.
    pub(crate) async fn handle(&self) -> Check<Arc<dyn Transport>> {
        if self.guarantees().shared { self.connect().await } else { Ok(Arc::clone(&self.transport)) }
    }

    async fn connect(&self) -> Check<Arc<dyn Transport>> {
        let handle = self.subject.connect().await?;
        self.opened.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&handle));
        Ok(handle)
    }

    /// Closes the first handle and opens another on the same store.
    pub(crate) async fn reopened(&self) -> Check<Arc<dyn Transport>> {
        self.transport.close().await?;
        self.connect().await
    }

    /// A queue name of this behaviour's own, not declared.
    pub(crate) fn queue_name(&self) -> Check<QueueName> {
        let number = self.made.lock().unwrap_or_else(PoisonError::into_inner).len();
        self.name_queue(format!("conformance-{}-{number}", self.tag))
    }

    /// A name for a queue that is deleted at the end.
    pub(crate) fn name_queue(&self, text: String) -> Check<QueueName> {
        let name = QueueName::try_from(text)?;
        self.made.lock().unwrap_or_else(PoisonError::into_inner).push(name.clone());
        Ok(name)
    }

    /// A topic of this behaviour's own.
    pub(crate) fn topic(&self, end: &str) -> Check<Topic> {
        Ok(Topic::try_from(format!("conformance.{}.{end}", self.tag))?)
    }

    /// A pattern under which only this behaviour's topics fall.
    pub(crate) fn pattern(&self, end: &str) -> Check<Pattern> {
        Ok(Pattern::try_from(format!("conformance.{}.{end}", self.tag))?)
    }

    /// A new queue without subscriptions.
    pub(crate) async fn queue(&self) -> Check<QueueName> {
        self.queue_with(&[]).await
    }

    /// A new queue subscribed to patterns of this behaviour's own.
    pub(crate) async fn queue_with(&self, patterns: &[&str]) -> Check<QueueName> {
        let name = self.queue_name()?;
        let mut spec = QueueSpec::durable(name.clone());
        for end in patterns {
            spec = spec.subscribe(self.pattern(end)?);
        }
        self.transport.declare(&spec).await?;
        Ok(name)
    }

    /// A numbered message.
    pub(crate) fn message(&self, number: usize) -> Check<Envelope> {
        self.message_about("numbered", number)
    }

    /// A numbered message of a topic of this behaviour's own.
    pub(crate) fn message_about(&self, end: &str, number: usize) -> Check<Envelope> {
        let body = Bytes::from(format!("{{\"number\":{number}}}"));
        let mut envelope = Envelope::new(self.topic(end)?, body);
        envelope.headers.insert("number", &number.to_string())?;
        Ok(envelope)
    }

    /// Sends so many numbered messages to a queue, in one batch.
    pub(crate) async fn send(&self, queue: &QueueName, count: usize) -> Check<Vec<Envelope>> {
        self.send_about(queue, "numbered", count).await
    }

    /// Sends so many numbered messages of a topic to a queue, in one batch.
    pub(crate) async fn send_about(
        &self,
        queue: &QueueName,
        end: &str,
        count: usize,
    ) -> Check<Vec<Envelope>> {
        let messages = (0..count).map(|number| self.message_about(end, number)).collect::<Check<Vec<_>>>()?;
        self.send_these(queue, &messages).await?;
        Ok(messages)
    }

    /// Sends these messages to a queue, in one batch.
    pub(crate) async fn send_these(&self, queue: &QueueName, messages: &[Envelope]) -> Check {
        let batch: Vec<_> =
            messages.iter().map(|message| Outgoing::send(queue.clone(), message.clone())).collect();
        publish_all(&*self.transport, &batch).await
    }

    /// Publishes so many numbered messages to a topic, in one batch.
    pub(crate) async fn publish(&self, end: &str, count: usize) -> Check<Vec<Envelope>> {
        let messages = (0..count).map(|number| self.message_about(end, number)).collect::<Check<Vec<_>>>()?;
        let batch: Vec<_> = messages.iter().map(|message| Outgoing::publish(message.clone())).collect();
        publish_all(&*self.transport, &batch).await?;
        Ok(messages)
    }

    /// A receiver on the first handle whose leases do not end while the behaviour runs.
    pub(crate) async fn receiver(&self, queue: &QueueName) -> Check<Box<dyn Receiver>> {
        self.receiver_with_lease(queue, LEASE_LONG).await
    }

    pub(crate) async fn receiver_with_lease(
        &self,
        queue: &QueueName,
        lease: Duration,
    ) -> Check<Box<dyn Receiver>> {
        receiver(&*self.transport, queue, lease).await
    }

    /// Waits until the queue's status is as expected.
    pub(crate) async fn status_becomes(
        &self,
        queue: &QueueName,
        expected: &str,
        holds: impl Fn(&QueueStatus) -> bool,
    ) -> Check<QueueStatus> {
        let deadline = Instant::now() + patience();
        loop {
            let status = self.transport.admin().queue(queue).await?;
            if holds(&status) {
                return Ok(status);
            }
            ensure!(
                Instant::now() < deadline,
                "the queue's status should say {expected}, but it is {status:?}"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Deletes what the behaviour made, and closes its handle. Says what could not be deleted.
    pub(crate) async fn clean_up(self) -> Result<(), String> {
        // The first handle may have been closed by the behaviour.
        let reachable = self.guarantees().shared || self.guarantees().durability > Durability::Process;
        let admin = if reachable { self.connect().await } else { Ok(Arc::clone(&self.transport)) };
        let admin = admin.map_err(|violation| violation.sentence().to_owned())?;
        let mut left = Vec::new();
        for queue in self.made.into_inner().unwrap_or_else(PoisonError::into_inner) {
            match admin.admin().delete(&queue).await {
                Ok(()) => {}
                // Never declared, or deleted by the behaviour; or the only handle there is was closed, store and all.
                Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Closed) => {}
                Err(error) => left.push(format!("queue {queue} could not be deleted: {}", error.report())),
            }
        }
        for handle in self.opened.into_inner().unwrap_or_else(PoisonError::into_inner) {
            if let Err(error) = handle.close().await {
                left.push(format!("closing failed: {}", error.report()));
            }
        }
        if left.is_empty() { Ok(()) } else { Err(left.join("; ")) }
    }
}

/// Publishes a batch of which every message must be stored.
pub(crate) async fn publish_all(transport: &dyn Transport, batch: &[Outgoing]) -> Check {
    let results = transport.publish(batch).await;
    ensure!(
        results.len() == batch.len(),
        "publishing {} messages gave {} results instead of one for each",
        batch.len(),
        results.len()
    );
    for (result, outgoing) in results.into_iter().zip(batch) {
        let receipt = result?;
        ensure!(
            receipt.id == outgoing.envelope.id,
            "the receipt for {} names {}: results are not in the order of the batch",
            outgoing.envelope.id,
            receipt.id
        );
    }
    Ok(())
}

/// A receiver on any handle.
pub(crate) async fn receiver(
    transport: &dyn Transport,
    queue: &QueueName,
    lease: Duration,
) -> Check<Box<dyn Receiver>> {
    let options = ReceiveOptions { lease, ..ReceiveOptions::default() };
    Ok(transport.receiver(queue, options).await?)
}

/// The error of something that must fail, and how.
pub(crate) fn must_fail<T>(
    result: estafette_core::Result<T>,
    kind: ErrorKind,
    what: &str,
) -> Result<(), Violation> {
    match result {
        Ok(_) => Err(Violation::Broken(format!("{what} must fail with `{kind}`, but it returned Ok"))),
        Err(error) if error.kind() == kind => Ok(()),
        Err(error) => Err(Violation::Broken(format!(
            "{what} must fail with `{kind}`, but failed with: {}",
            error.report()
        ))),
    }
}
