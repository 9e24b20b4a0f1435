//! The writing half: an event becomes a row in the caller's own transaction.

use std::time::Duration;

use estafette_core::{
    Destination, Envelope, Error, ErrorKind, Message, MessageId, QueueName, Result, Timestamp,
};

use crate::{
    BlockingExecutor, Executor, Wake,
    row::{NewRow, attributes},
};

/// The longest type or id of a subject, in bytes: what the table's columns hold in every database.
pub const SUBJECT_BYTES_MAX: usize = 250;

/// Writes events into the table `estafette_outbox`, in transactions of the application.
///
/// What is written is published if the transaction commits, and only then: by a [`Relay`](crate::Relay), in this process or
/// another. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Outbox {
    source: Box<str>,
    wake: Wake,
}

impl Outbox {
    /// An outbox of the service `source`: the `source` of its messages.
    #[must_use]
    pub fn new(source: &str) -> Self {
        Self { source: source.into(), wake: Wake::default() }
    }

    /// Writes an event for every queue subscribed to its topic. Returns the id it will have.
    ///
    /// # Errors
    ///
    /// Those of [`Entry::publish`].
    pub fn publish<'t, E, M>(
        &self,
        transaction: &'t mut E,
        message: &M,
    ) -> impl Future<Output = Result<MessageId>> + Send + use<'t, E, M>
    where
        E: Executor + ?Sized,
        M: Message,
    {
        self.entry(message).publish(transaction)
    }

    /// Writes a message for one queue. Returns the id it will have.
    ///
    /// # Errors
    ///
    /// Those of [`Entry::publish`], and a name that is none.
    pub fn send<'t, E, N, M>(
        &self,
        transaction: &'t mut E,
        queue: N,
        message: &M,
    ) -> impl Future<Output = Result<MessageId>> + Send + use<'t, E, N, M>
    where
        E: Executor + ?Sized,
        N: TryInto<QueueName>,
        Error: From<N::Error>,
        M: Message,
    {
        self.entry(message).to_queue(queue).publish(transaction)
    }

    /// An event to which more is to be said before it is written.
    pub fn entry<M: Message>(&self, message: &M) -> Entry {
        Entry::new(&self.source, Envelope::of(message))
    }

    /// An event that is encoded already, such as one without a type of its own.
    pub fn envelope(&self, envelope: Envelope) -> Entry {
        Entry::new(&self.source, Ok(envelope))
    }

    /// Tells relays of this process that something was committed, so that they look at once. Worth nothing with PostgreSQL,
    /// which tells every relay itself.
    pub fn committed(&self) {
        self.wake.notify();
    }

    /// What [`committed`](Self::committed) rings, for [`Relay::wake`](crate::Relay::wake).
    #[must_use]
    pub fn wake(&self) -> Wake {
        self.wake.clone()
    }
}

/// An event about to be written.
#[must_use = "nothing is written before publish is called"]
pub struct Entry {
    envelope: Result<Envelope>,
    subject: Option<(Box<str>, Box<str>)>,
    destination: Destination,
    exchange: Option<Box<str>>,
    delay: Duration,
}

impl Entry {
    fn new(source: &str, envelope: Result<Envelope>) -> Self {
        let envelope = envelope.map(|mut envelope| {
            if &*envelope.source == "estafette" {
                envelope.source = source.into();
            }
            envelope
        });
        let subject = envelope.as_ref().ok().and_then(|envelope| {
            let kind = envelope.topic.words().next()?;
            Some((kind.into(), envelope.subject.clone()?))
        });
        Self { envelope, subject, destination: Destination::Topic, exchange: None, delay: Duration::ZERO }
    }

    /// Names the model the event is about: its type and its id. Events of one subject are published in the order they were
    /// written. Without this, the message's own subject counts, with the topic's first word as its type; without
    /// that either, the event waits for no other.
    #[allow(clippy::needless_pass_by_value, reason = "numbers and texts, as they are at hand")]
    pub fn subject(mut self, kind: &str, id: impl ToString) -> Self {
        let id = id.to_string().into_boxed_str();
        if let Ok(envelope) = &mut self.envelope {
            envelope.subject = Some(id.clone());
        }
        self.subject = Some((kind.into(), id));
        self
    }

    /// For this one queue, instead of every queue subscribed to the topic.
    pub fn to_queue<N>(mut self, queue: N) -> Self
    where
        N: TryInto<QueueName>,
        Error: From<N::Error>,
    {
        match queue.try_into() {
            Ok(queue) => self.destination = Destination::Queue(queue),
            Err(error) => self.envelope = Err(Error::from(error)),
        }
        self
    }

    /// Publishes the event so much later. It keeps no order with other events of its subject then.
    pub fn delay(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// Attaches a header.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        if let Ok(envelope) = &mut self.envelope
            && let Err(error) = envelope.headers.insert(name, value)
        {
            self.envelope = Err(error);
        }
        self
    }

    /// Messages with the same key keep their order with consumers that ask for it.
    pub fn key(self, key: &str) -> Self {
        self.with(|envelope| envelope.partition_key = Some(key.into()))
    }

    /// Gives the event an id of one's own, for a caller that makes ids.
    pub fn id(self, id: MessageId) -> Self {
        self.with(|envelope| envelope.id = id)
    }

    /// Changes any attribute of the message.
    pub fn with(mut self, change: impl FnOnce(&mut Envelope)) -> Self {
        if let Ok(envelope) = &mut self.envelope {
            change(envelope);
        }
        self
    }

    /// Names another exchange than the topic's first word. It is kept in the table and goes along as the header
    /// [`EXCHANGE_HEADER`](crate::EXCHANGE_HEADER); engines without exchanges ignore it.
    pub fn exchange(mut self, exchange: &str) -> Self {
        self.exchange = Some(exchange.into());
        self
    }

    /// Writes the event in `transaction`. Returns the id it will have.
    ///
    /// # Errors
    ///
    /// Those of the message's codec and of the database; [`ErrorKind::InvalidInput`] for a subject or exchange that is too
    /// long. The caller decides about its transaction.
    pub async fn publish<E: Executor + ?Sized>(self, transaction: &mut E) -> Result<MessageId> {
        let (row, id) = self.row()?;
        transaction.execute(NewRow::insert(transaction.dialect()), &row.values()).await?;
        metrics::counter!("estafette_outbox_written_total").increment(1);
        Ok(id)
    }

    /// As [`publish`](Self::publish), in a transaction of a library that blocks.
    ///
    /// # Errors
    ///
    /// As [`publish`](Self::publish).
    pub fn publish_blocking<E: BlockingExecutor + ?Sized>(self, transaction: &mut E) -> Result<MessageId> {
        let (row, id) = self.row()?;
        transaction.execute(NewRow::insert(transaction.dialect()), &row.values())?;
        metrics::counter!("estafette_outbox_written_total").increment(1);
        Ok(id)
    }

    fn row(self) -> Result<(NewRow, MessageId)> {
        let envelope = self.envelope?;
        let now = Timestamp::now();
        let texts = self.subject.iter().flat_map(|(kind, id)| [kind, id]).chain(self.exchange.iter());
        if let Some(long) = texts.into_iter().find(|text| text.len() > SUBJECT_BYTES_MAX) {
            let sentence =
                format!("{} bytes are too many for a subject; {SUBJECT_BYTES_MAX} at most", long.len());
            return Err(Error::new(ErrorKind::InvalidInput, sentence));
        }
        // At once is not "now": the clocks of the application and of the database need not agree.
        let due_at = if self.delay.is_zero() { Timestamp::default() } else { now + self.delay };
        let id = envelope.id.clone();
        let lane =
            self.subject.as_ref().filter(|_| self.delay.is_zero()).map(|(kind, id)| format!("{kind}/{id}"));
        let (subject_type, subject_id) = self.subject.unzip();
        let queue = match self.destination {
            Destination::Queue(queue) => Some(queue),
            Destination::Topic => None,
        };
        let row = NewRow {
            id: envelope.id.to_string(),
            attributes: attributes(&envelope),
            envelope,
            subject_type,
            subject_id,
            lane,
            queue,
            exchange: self.exchange,
            created_at: now,
            due_at,
        };
        Ok((row, id))
    }
}
