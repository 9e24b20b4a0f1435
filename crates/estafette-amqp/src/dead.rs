//! The dead letters of a queue: messages in `<queue>.dead`, looked at without taking them.
//!
//! They are fetched on a channel of their own; what is not redriven or purged goes back to its place when the channel closes,
//! also when the caller is cancelled half way. Meanwhile another reader does not see them.

use std::{
    borrow::Cow,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use estafette_core::{DeadLetter, DeadQuery, Error, ErrorKind, QueueName, Reason, Result, Timestamp};

use tokio::time::Instant;

use crate::{
    confirms::Fate,
    desk::{Desk, Quiet},
    envelope, error,
    link::{Channel, Incoming},
    marks::{Death, Marks, REDRIVEN},
    names,
    protocol::{Properties, request},
    publication::{Copied, Publication, What},
    publisher::Publisher,
};

/// How many are asked for at once.
const CHUNK: usize = 200;

/// How long at most it takes until what was put back is counted again.
const PUT_BACK: Duration = Duration::from_secs(1);

/// The dead letters of one queue, being looked at.
pub(crate) struct Graveyard {
    channel: Channel,
    queue: QueueName,
    /// How many there were when it was opened.
    left: usize,
    opened_with: usize,
    /// How many were redriven or purged.
    settled: AtomicUsize,
}

/// What is done with dead letters.
#[derive(Clone, Copy)]
enum Work<'a> {
    Purge,
    Redrive(&'a Publisher),
}

struct Found {
    incoming: Incoming,
    letter: DeadLetter,
    key: Option<String>,
}

impl Graveyard {
    pub(crate) async fn open(desk: &Desk, queue: &QueueName, count: u32) -> Result<Self> {
        let channel = desk.channel(Arc::new(Quiet), desk.deadline()).await?;
        let left = usize::try_from(count).unwrap_or(usize::MAX);
        let settled = AtomicUsize::new(0);
        Ok(Self { channel, queue: queue.clone(), left, opened_with: left, settled })
    }

    /// Puts everything back that was fetched and not settled, and returns when it is there.
    async fn put_back(&self) -> Result<()> {
        // Zero and multiple: everything, also when that is nothing.
        self.channel.write(|out, id| request::basic_requeue(out, id, 0, true));
        let name = names::dead(self.queue.as_str());
        let expected = self.opened_with.saturating_sub(self.settled.load(Ordering::Acquire));
        let deadline = Instant::now() + PUT_BACK;
        // A quorum queue answers before it has put them back.
        while self.channel.look(&name).await? < expected && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    /// The next ones, oldest first; none at the end.
    async fn next(&mut self) -> Result<Vec<Found>> {
        let name = names::dead(self.queue.as_str());
        let count = CHUNK.min(self.left);
        self.left -= count;
        let calls: Vec<_> =
            (0..count).map(|_| self.channel.start(|out, id| request::basic_get(out, id, &name))).collect();
        let mut found = Vec::with_capacity(count);
        for call in calls {
            match call.answer().await?.into_message()? {
                Some(incoming) => found.push(read(&self.queue, incoming)),
                // Somebody else took some: the others answer the same.
                None => self.left = 0,
            }
        }
        Ok(found)
    }

    pub(crate) async fn list(mut self, query: &DeadQuery) -> Result<Vec<DeadLetter>> {
        let mut letters = Vec::new();
        let wanted = query.skip.saturating_add(query.limit.unwrap_or(usize::MAX));
        loop {
            let found = self.next().await?;
            if found.is_empty() {
                break;
            }
            letters
                .extend(found.into_iter().map(|found| found.letter).filter(|letter| query.matches(letter)));
            if letters.len() >= wanted {
                break;
            }
        }
        self.put_back().await?;
        Ok(query.select(letters.into_iter()).collect())
    }

    pub(crate) async fn purge(self, query: &DeadQuery) -> Result<u64> {
        self.each(query, Work::Purge).await
    }

    pub(crate) async fn redrive(self, query: &DeadQuery, publisher: &Publisher) -> Result<u64> {
        self.each(query, Work::Redrive(publisher)).await
    }

    /// Does something with those that are meant, a chunk at a time, and returns with how many it was done.
    async fn each(mut self, query: &DeadQuery, work: Work<'_>) -> Result<u64> {
        let mut skip = query.skip;
        let mut left = query.limit.unwrap_or(usize::MAX);
        let mut done = 0;
        while left > 0 {
            let mut found = self.next().await?;
            if found.is_empty() {
                break;
            }
            found.retain(|found| query.matches(&found.letter));
            let skipped = skip.min(found.len());
            skip -= skipped;
            found.drain(..skipped);
            found.truncate(left);
            left -= found.len();
            done += match work {
                Work::Purge => {
                    self.ack(&found);
                    found.len()
                }
                Work::Redrive(publisher) => self.redrive_some(found, publisher).await?,
            };
        }
        self.put_back().await?;
        Ok(done as u64)
    }

    fn ack(&self, found: &[Found]) {
        self.settled.fetch_add(found.len(), Ordering::AcqRel);
        self.channel.write(|out, id| {
            for found in found {
                request::basic_ack(out, id, found.incoming.tag, false);
            }
        });
    }

    async fn redrive_some(&self, found: Vec<Found>, publisher: &Publisher) -> Result<usize> {
        let publications: Vec<_> = found
            .iter()
            .map(|found| {
                let times = found.letter.envelope.headers.get(REDRIVEN).and_then(|text| text.parse().ok());
                let marks = Marks { key: found.key.clone(), ..Marks::default() };
                Publication {
                    exchange: "".into(),
                    key: self.queue.as_str().into(),
                    what: What::Copy(Copied {
                        content: Cow::Borrowed(&found.incoming.content),
                        id: found.letter.envelope.id.clone(),
                        marks,
                        redriven: Some(times.unwrap_or(0) + 1),
                    }),
                }
            })
            .collect();
        let fates = publisher.confirmed(&publications).await;
        drop(publications);
        let mut problem = None;
        let mut stored = Vec::with_capacity(found.len());
        for (found, fate) in found.into_iter().zip(fates) {
            match fate {
                Ok(Fate::Stored) => stored.push(found),
                Ok(Fate::Returned) => problem = Some(Error::no_queue(&self.queue)),
                Ok(Fate::Refused) => problem = Some(error::refused_by_broker()),
                Ok(Fate::Lost(error)) | Err(error) => problem = Some(error),
            }
        }
        self.ack(&stored);
        match problem {
            Some(error) => {
                self.put_back().await?;
                Err(error)
            }
            None => Ok(stored.len()),
        }
    }
}

/// The dead letter in a message.
fn read(queue: &QueueName, incoming: Incoming) -> Found {
    let properties = Properties::read(&incoming.content.header).unwrap_or_default();
    let fields = properties.fields();
    let marks = Marks::read(fields);
    let death = Death::read(fields, queue.as_str());
    // The broker publishes with another routing key; the first is a foreign message's topic.
    let key = marks.key.clone().or_else(|| death.as_ref()?.key.clone()).filter(|key| key != queue.as_str());
    let read = envelope::read(&incoming.content, &incoming.origin);
    let mut problem = None;
    let mut letter_envelope = read.unwrap_or_else(|error| {
        problem = (error.kind() == ErrorKind::Undecodable).then(|| error.report());
        envelope::undecoded(incoming.content.body.clone())
    });
    if let Some(topic) = key.as_deref().filter(|_| properties.kind.is_none()).and_then(names::topic_of) {
        letter_envelope.topic = topic;
    }
    let at = marks.last_failed_at.or_else(|| death.as_ref()?.at).unwrap_or_else(Timestamp::now);
    let reason = marks.reason.or_else(|| death.as_ref().map(Death::reason)).unwrap_or(Reason::Rejected);
    let error = marks.error.or(problem).or_else(|| Some(format!("{} in the broker", death.as_ref()?.reason)));
    let letter = DeadLetter {
        envelope: letter_envelope,
        queue: queue.clone(),
        reason,
        error: error.unwrap_or_default(),
        attempts: marks.attempts,
        first_failed_at: marks.first_failed_at.unwrap_or(at),
        last_failed_at: at,
    };
    Found { letter, key, incoming }
}
