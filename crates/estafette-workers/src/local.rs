//! The way from a participant to itself: a bounded queue, so that a listener that sends to its own action cannot recurse.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use estafette_core::{Error, Result};
use tokio::sync::Notify;

use crate::{
    Address, Limits,
    desk::{Answers, Desk},
    endpoint::Endpoint,
    error::{ListenerError, kind_from_name},
    frame::Frame,
    link::Link,
    pending::Pending,
    pipe::Put,
    wire::Parcel,
};

/// What a participant has sent to itself and not handled yet.
#[derive(Debug)]
pub(crate) struct LocalLink {
    bytes_max: usize,
    queue: Mutex<Queue>,
    arrived: Notify,
    room: Notify,
    pending: Arc<Pending>,
}

#[derive(Debug, Default)]
struct Queue {
    parcels: VecDeque<(Option<u64>, Parcel)>,
    bytes: usize,
}

impl LocalLink {
    pub(crate) fn new(own: Address, limits: &Limits) -> Self {
        Self {
            bytes_max: limits.queue_bytes_max,
            queue: Mutex::default(),
            arrived: Notify::new(),
            room: Notify::new(),
            pending: Arc::new(Pending::new(own, limits)),
        }
    }

    /// Handles what arrives, for ever. Run as a task of its own.
    pub(crate) async fn run(self: Arc<Self>, endpoint: Arc<Endpoint>) {
        let answers = Arc::new(LocalAnswers(Arc::clone(&self.pending)));
        let mut desk = Desk::new(Arc::clone(&endpoint), endpoint.address.clone(), answers);
        loop {
            while desk.is_busy() {
                desk.one_ended().await;
            }
            let next = self.lock().parcels.pop_front();
            let Some((id, parcel)) = next else {
                self.arrived.notified().await;
                continue;
            };
            if let Some(view) = parcel.view(id) {
                desk.take(view);
            }
            self.lock().bytes -= size(&parcel);
            self.room.notify_waiters();
            tokio::task::consume_budget().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a parcel counts in the queue: small ones cost their place in it too.
fn size(parcel: &Parcel) -> usize {
    parcel.len() + size_of::<(Option<u64>, Parcel)>()
}

#[async_trait]
impl Link for LocalLink {
    fn put(&self, id: Option<u64>, parcel: &Parcel) -> Result<Put> {
        let mut queue = self.lock();
        if queue.bytes > 0 && queue.bytes + size(parcel) > self.bytes_max {
            return Ok(Put::NoRoom);
        }
        queue.bytes += size(parcel);
        queue.parcels.push_back((id, parcel.clone()));
        drop(queue);
        self.arrived.notify_one();
        Ok(Put::Taken)
    }

    async fn room(&self) {
        loop {
            let mut notified = std::pin::pin!(self.room.notified());
            notified.as_mut().enable();
            if self.lock().bytes * 2 <= self.bytes_max {
                return;
            }
            notified.await;
        }
    }

    fn pending(&self) -> &Arc<Pending> {
        &self.pending
    }

    fn is_closed(&self) -> bool {
        false
    }

    async fn finish(&self, _endpoint: &Endpoint) {}
}

struct LocalAnswers(Arc<Pending>);

impl Answers for LocalAnswers {
    fn answer(&self, frame: Frame) {
        let (id, outcome) = match frame {
            Frame::Reply { id, body } => (id, Ok(body)),
            Frame::Failure { id, refusal } => {
                // A listener of this very process: its error needs no name of who answered, but looks like all others.
                let source = ListenerError { from: self.0.peer().clone(), message: refusal.message };
                (id, Err(Error::new(kind_from_name(&refusal.kind), source)))
            }
            _ => return,
        };
        // Nobody waits any more when the time was up; requests to oneself have no late replies to count.
        self.0.resolve(id, outcome);
    }
}
