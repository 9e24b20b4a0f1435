//! How often a message was handed over.
//!
//! A message says in a header how many attempts it has had when it was last written. When it comes back without being written
//! again (its consumer died, or gave it back), the broker only says that it was delivered before: a quorum queue counts, a
//! classic queue does not, and neither knows whether it was handed over or only fetched. So whoever knows better leaves a
//! note in the queue `<queue>.attempts`: before a redelivered message is handed over again, and when messages are given back
//! that were not handed over. The last note about a message counts.
//!
//! Notes are kept a day. When two consumers read them at the same moment, one of them may miss some; then the count is that
//! of the broker.

use std::{collections::HashMap, sync::Arc};

use estafette_core::{Delivery, Envelope, ErrorKind, MessageId, QueueName, Result, Settler, Ticket, Topic};

use crate::{
    config::Compat,
    confirms::Fate,
    desk::{Desk, Quiet},
    link::Incoming,
    marks, names,
    protocol::{Properties, request},
    publication::{Publication, What},
    publisher::Publisher,
    settler::AmqpSettler,
    topology::Topology,
};

const NOTE: Topic = Topic::from_static("estafette.attempts");

/// How many notes are read at most, and from how many on they are written together.
const READ_MAX: u32 = 10_000;
const TOGETHER_FROM: u32 = 200;

/// A delivery in the making. Dropped, it goes back.
pub(crate) struct Claim {
    settler: Arc<AmqpSettler>,
    pub(crate) envelope: Arc<Envelope>,
    pub(crate) attempt: u32,
    ticket: Option<Ticket>,
}

impl Claim {
    pub(crate) fn new(
        settler: Arc<AmqpSettler>,
        envelope: Arc<Envelope>,
        attempt: u32,
        ticket: Ticket,
    ) -> Self {
        Self { settler, envelope, attempt, ticket: Some(ticket) }
    }

    pub(crate) fn queue(&self) -> &QueueName {
        self.settler.queue()
    }

    pub(crate) fn into_delivery(mut self) -> Delivery {
        // Taken once, here.
        let ticket = self.ticket.take().unwrap_or(Ticket { key: 0, fence: 0 });
        crate::receiver::deliver(&self, ticket, Arc::clone(&self.settler) as Arc<dyn Settler>)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            self.settler.abandon(ticket);
        }
    }
}

/// What is known about a redelivered message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Suspect {
    /// The attempts its header tells of.
    pub(crate) spent: u32,
    pub(crate) redriven: u64,
    /// How often the broker says it was delivered before.
    pub(crate) counted_by_broker: Option<u32>,
}

/// What a note is about: a message, as it was last written.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Written {
    pub(crate) id: MessageId,
    pub(crate) spent: u32,
    pub(crate) redriven: u64,
}

impl Written {
    /// What a fetched message is, for notes; none when it has no id.
    pub(crate) fn of(incoming: &Incoming) -> Option<Self> {
        let properties = Properties::read(&incoming.content.header).ok()?;
        let redriven = properties.fields().text(marks::REDRIVEN).and_then(|text| text.parse().ok());
        Some(Self {
            id: properties.message_id?.parse().ok()?,
            spent: marks::attempts(properties.fields()),
            redriven: redriven.unwrap_or(0),
        })
    }
}

/// Reads and writes notes.
pub(crate) struct Attempts {
    desk: Arc<Desk>,
    topology: Arc<Topology>,
    publisher: Arc<Publisher>,
}

impl Attempts {
    pub(crate) fn new(desk: Arc<Desk>, topology: Arc<Topology>, publisher: Arc<Publisher>) -> Self {
        Self { desk, topology, publisher }
    }

    /// Finds out which attempt each redelivered message is at, and notes it before it is handed over.
    pub(crate) async fn count(&self, queue: &QueueName, suspects: Vec<(Claim, Suspect)>) -> Vec<Claim> {
        let notes = self.read(queue).await.unwrap_or_else(|error| {
            tracing::warn!(%queue, error = error.report(), "the notes about attempts cannot be read");
            HashMap::new()
        });
        let mut news = Vec::with_capacity(suspects.len());
        let mut claims = Vec::with_capacity(suspects.len());
        for (mut claim, suspect) in suspects {
            let written =
                Written { id: claim.envelope.id.clone(), spent: suspect.spent, redriven: suspect.redriven };
            let before = notes
                .get(&written)
                .copied()
                .unwrap_or_else(|| suspect.spent + suspect.counted_by_broker.unwrap_or(1).max(1));
            claim.attempt = before + 1;
            claim.settler.set_attempt(claim.ticket, claim.attempt);
            news.push((written, claim.attempt));
            claims.push(claim);
        }
        self.write(queue, &news).await;
        claims
    }

    /// Notes how many attempts messages have had. When that fails the count is the broker's.
    pub(crate) async fn write(&self, queue: &QueueName, news: &[(Written, u32)]) {
        if news.is_empty() {
            return;
        }
        if let Err(error) = self.try_write(queue, news).await {
            tracing::warn!(%queue, error = error.report(), "attempts could not be noted");
        }
    }

    async fn try_write(&self, queue: &QueueName, news: &[(Written, u32)]) -> Result<()> {
        let name = self.topology.declare_notes(queue).await?;
        let lines = news.iter().map(|(written, attempts)| {
            format!("{attempts} {} {} {}\n", written.spent, written.redriven, written.id)
        });
        let envelope = Envelope::new(NOTE, lines.collect::<String>().into());
        let publication = Publication {
            exchange: "".into(),
            key: name.as_str().into(),
            what: What::New { envelope: &envelope, compat: Compat::None, expires: false },
        };
        match self.publisher.confirmed(&[publication]).await.pop() {
            Some(Ok(Fate::Stored)) => Ok(()),
            Some(Err(error) | Ok(Fate::Lost(error))) => Err(error),
            _ => {
                self.topology.forget();
                Err(ErrorKind::NotFound.into())
            }
        }
    }

    /// All notes about a queue's messages: the last one about each.
    async fn read(&self, queue: &QueueName) -> Result<HashMap<Written, u32>> {
        let name = names::notes(queue.as_str());
        let mut notes = HashMap::new();
        let count = match self.desk.look(&name).await? {
            None | Some((0, _)) => return Ok(notes),
            Some((count, _)) => count.min(READ_MAX),
        };
        // Should this be cancelled: dropping the channel puts them back where they were.
        let channel = self.desk.channel(Arc::new(Quiet), self.desk.deadline()).await?;
        let calls: Vec<_> =
            (0..count).map(|_| channel.start(|out, id| request::basic_get(out, id, &name))).collect();
        let mut last = None;
        for call in calls {
            let Some(note) = call.answer().await?.into_message()? else { break };
            last = Some(note.tag);
            parse(&note.content.body, &mut notes);
        }
        let Some(last) = last else { return Ok(notes) };
        if count >= TOGETHER_FROM {
            let all: Vec<_> = notes.iter().map(|(written, &attempts)| (written.clone(), attempts)).collect();
            self.try_write(queue, &all).await?;
            channel.write(|out, id| request::basic_ack(out, id, last, true));
        } else {
            channel.write(|out, id| request::basic_requeue(out, id, last, true));
        }
        Ok(notes)
    }
}

fn parse(body: &[u8], notes: &mut HashMap<Written, u32>) {
    for line in String::from_utf8_lossy(body).lines() {
        let mut words = line.splitn(4, ' ');
        let mut read = || {
            let attempts = words.next()?.parse().ok()?;
            let (spent, redriven) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
            Some((Written { id: words.next()?.parse().ok()?, spent, redriven }, attempts))
        };
        if let Some((written, attempts)) = read() {
            notes.insert(written, attempts);
        }
    }
}
