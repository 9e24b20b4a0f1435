//! A channel: calls with answers, in order.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use estafette_core::{Error, ErrorKind, Result};
use tokio::sync::oneshot;

use super::{Incoming, Link, dispatch::Events, lock};
use crate::{
    error,
    protocol::{
        Reader,
        request::{self, DeclareQueue},
    },
};

/// The header and the body of a message, sharing the memory they were read into.
#[derive(Clone, Debug)]
pub(crate) struct Content {
    pub(crate) header: Bytes,
    pub(crate) body: Bytes,
}

/// The broker's answer to a call.
pub(crate) struct Reply {
    pub(crate) arguments: Bytes,
    /// The message that came with it, for `basic.get`.
    pub(crate) content: Option<Content>,
}

impl Reply {
    /// The counts in the answer to the declaration of a queue: messages and consumers.
    pub(crate) fn counts(&self) -> Result<(u32, u32)> {
        let mut reader = Reader(&self.arguments);
        let mut read = || {
            reader.short()?;
            Ok((reader.u32()?, reader.u32()?))
        };
        read().map_err(error::malformed)
    }

    /// The count in the answer to purging or deleting a queue.
    pub(crate) fn count(&self) -> Result<u32> {
        Reader(&self.arguments).u32().map_err(error::malformed)
    }

    /// The message in the answer to `basic.get`; none when the queue is empty.
    pub(crate) fn into_message(self) -> Result<Option<Incoming>> {
        let Some(content) = self.content else { return Ok(None) };
        let mut reader = Reader(&self.arguments);
        let mut read = || Ok((reader.u64()?, reader.u8()?));
        let (tag, redelivered) = read().map_err(error::malformed)?;
        let origin = self.arguments.slice(self.arguments.len() - reader.0.len()..);
        Ok(Some(Incoming { tag, redelivered: redelivered != 0, origin, content }))
    }
}

/// What the reading task knows of a channel.
pub(crate) struct Entry {
    pub(crate) events: Arc<dyn Events>,
    calls: Mutex<Calls>,
}

#[derive(Default)]
struct Calls {
    waiting: VecDeque<oneshot::Sender<Result<Reply>>>,
    closed: Option<Error>,
}

impl Entry {
    pub(crate) fn new(events: Arc<dyn Events>) -> Self {
        Self { events, calls: Mutex::default() }
    }

    pub(crate) fn answer(&self, reply: Reply) {
        if let Some(waiting) = lock(&self.calls).waiting.pop_front() {
            // Whoever asked may have stopped waiting.
            drop(waiting.send(Ok(reply)));
        }
    }

    pub(crate) fn close(&self, error: &Error) {
        let waiting = {
            let mut calls = lock(&self.calls);
            calls.closed.get_or_insert_with(|| error.clone());
            std::mem::take(&mut calls.waiting)
        };
        for waiting in waiting {
            drop(waiting.send(Err(error.clone())));
        }
        self.events.closed(error);
    }
}

/// A channel of a link. Dropping it closes it: what is unsettled on it goes back.
pub(crate) struct Channel {
    link: Arc<Link>,
    id: u16,
    entry: Arc<Entry>,
}

/// An answer that is on its way.
pub(crate) struct Call {
    answer: oneshot::Receiver<Result<Reply>>,
    timeout: std::time::Duration,
}

impl Call {
    /// Waits for the answer.
    pub(crate) async fn answer(self) -> Result<Reply> {
        match tokio::time::timeout(self.timeout, self.answer).await {
            Ok(Ok(reply)) => reply,
            Ok(Err(_)) => Err(error::hung_up()),
            Err(_) => {
                let sentence = format!("the broker did not answer within {:?}", self.timeout);
                Err(Error::new(ErrorKind::TimedOut, sentence))
            }
        }
    }
}

impl Channel {
    pub(crate) fn new(link: Arc<Link>, id: u16, entry: Arc<Entry>) -> Self {
        Self { link, id, entry }
    }

    pub(crate) fn link(&self) -> &Arc<Link> {
        &self.link
    }

    /// Sends a method and waits for its answer.
    pub(crate) async fn call(&self, encode: impl FnOnce(&mut Vec<u8>, u16)) -> Result<Reply> {
        self.start(encode).answer().await
    }

    /// Sends a method; its answer can be awaited later, so that several are on their way at once.
    pub(crate) fn start(&self, encode: impl FnOnce(&mut Vec<u8>, u16)) -> Call {
        let (sender, answer) = oneshot::channel();
        {
            let mut calls = lock(&self.entry.calls);
            match &calls.closed {
                Some(error) => drop(sender.send(Err(error.clone()))),
                None => {
                    calls.waiting.push_back(sender);
                    // Under the lock, so that answers come in the order of the calls.
                    self.write(encode);
                }
            }
        }
        Call { answer, timeout: self.link.shared.call_timeout }
    }

    /// Waits until the broker has handled everything written on this channel so far, as far as it concerns `queue`.
    pub(crate) async fn flush(&self, queue: &str) -> Result<()> {
        self.look(queue).await.map(drop)
    }

    /// How many messages are ready in `queue`, which must exist.
    pub(crate) async fn look(&self, queue: &str) -> Result<usize> {
        let passive =
            DeclareQueue { name: queue, passive: true, durable: false, auto_delete: false, arguments: &[] };
        let (ready, _) = self.call(|out, id| request::queue_declare(out, id, &passive)).await?.counts()?;
        Ok(usize::try_from(ready).unwrap_or(usize::MAX))
    }

    /// Appends to what is to be written.
    pub(crate) fn write(&self, encode: impl FnOnce(&mut Vec<u8>, u16)) {
        self.link.shared.write(|out| encode(out, self.id));
    }

    /// Appends to what is to be written soon, along with more.
    pub(crate) fn write_later(&self, encode: impl FnOnce(&mut Vec<u8>, u16)) {
        self.link.shared.write_later(|out| encode(out, self.id));
    }

    /// Hands the socket what has gathered.
    pub(crate) fn write_now(&self) {
        self.link.shared.write_now();
    }

    pub(crate) fn is_open(&self) -> bool {
        self.error().is_none()
    }

    /// Why the channel has ended.
    pub(crate) fn error(&self) -> Option<Error> {
        lock(&self.entry.calls).closed.clone().or_else(|| self.link.error())
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        let was_open = lock(&self.link.shared.channels).closing(self.id, &self.entry);
        if was_open {
            self.write(request::channel_close);
        }
    }
}
