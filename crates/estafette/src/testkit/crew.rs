//! The application's consumers: started once, started again when a limit of their own ended them.

use std::{
    future::pending,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use estafette_consumer::{Consumer, Summary};
use estafette_core::{Error, ErrorKind, Lifetime, QueueName, QueueStatus, Result};
use tokio::task::JoinSet;

use super::stage::Stage;
use crate::Bus;

type Build = Box<dyn Fn(&Bus) -> Consumer + Send + Sync>;

/// The consumers of a test. They end with it.
pub(super) struct Crew {
    stage: Arc<Stage>,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    members: Vec<Member>,
    running: JoinSet<()>,
    /// Which members' runs ended, and how.
    ended: Vec<(usize, Result<Summary>)>,
}

struct Member {
    build: Build,
    queue: QueueName,
    lifetime: Lifetime,
    is_running: bool,
}

impl Crew {
    pub(super) fn new(stage: Arc<Stage>) -> Self {
        Self { stage, inner: Mutex::default() }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // A panic while it was held leaves nothing half done.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn len(&self) -> usize {
        self.inner().members.len()
    }

    /// Adds a member and starts it, on `bus`.
    pub(super) fn add(self: &Arc<Self>, bus: &Bus, build: Build) {
        let consumer = build(bus);
        let (queue, lifetime) = (consumer.queue().name.clone(), consumer.queue().lifetime);
        let number = {
            let mut inner = self.inner();
            inner.members.push(Member { build, queue, lifetime, is_running: true });
            inner.members.len() - 1
        };
        self.start(number, consumer);
    }

    fn start(self: &Arc<Self>, number: usize, consumer: Consumer) {
        let crew = Arc::downgrade(self);
        let mut inner = self.inner();
        // Those that ended have said so themselves.
        while inner.running.try_join_next().is_some() {}
        inner.running.spawn(async move {
            let ended = consumer.run_until(pending()).await;
            if let Some(crew) = crew.upgrade() {
                crew.inner().ended.push((number, ended));
                crew.stage.traffic.change();
            }
        });
    }

    /// Fails with the error of a consumer that failed; starts those again that ended by a limit of their own and have work
    /// left, as a supervisor would.
    pub(super) fn look_after(self: &Arc<Self>, bus: &Bus, statuses: &[QueueStatus]) -> Result<()> {
        let mut to_start = Vec::new();
        {
            let mut inner = self.inner();
            let Inner { members, ended, .. } = &mut *inner;
            for (number, result) in ended.drain(..) {
                let Some(member) = members.get_mut(number) else { continue };
                member.is_running = false;
                result.map_err(|error| of_consumer(&member.queue, &error))?;
            }
            let has_work = |member: &Member| {
                statuses.iter().any(|status| status.name == member.queue && status.ready > 0)
            };
            for (number, member) in members.iter_mut().enumerate() {
                if !member.is_running && member.lifetime == Lifetime::Durable && has_work(member) {
                    member.is_running = true;
                    to_start.push((number, (member.build)(bus)));
                }
            }
        }
        for (number, consumer) in to_start {
            self.start(number, consumer);
        }
        Ok(())
    }

    /// Whether a consumer of this queue runs, perhaps without having opened the queue yet.
    pub(super) fn tends(&self, queue: &QueueName) -> bool {
        self.inner().members.iter().any(|member| member.is_running && member.queue == *queue)
    }

    /// Whether a run ended and was not looked after yet.
    pub(super) fn has_ended(&self) -> bool {
        !self.inner().ended.is_empty()
    }
}

fn of_consumer(queue: &QueueName, error: &Error) -> Error {
    let kind: ErrorKind = error.kind();
    Error::new(kind, format!("the consumer of {queue} ended: {}", error.report()))
}
