//! What an open database is made of, and the work that takes more than one step.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use estafette_core::{DeadQuery, MessageId, QueueName, Result};
use tokio::sync::Notify;

#[cfg(feature = "postgres")]
use super::postgres;
use super::{
    CHUNK_MAX,
    claim::{self, Found, Marks},
    config::ServerConfig,
    connection::Connection,
    dead, owners,
    pool::{Flush, Pool},
    publish::Known,
    queues::{self, Which},
    settle::{self, Dead, Held},
    sharing::Sharing,
    work::{Repeat, Tries, work},
};
use crate::{
    leases::Lease,
    routes::QueueId,
    store::{Claim, Deliver, Delivered, Fate},
};

/// An open database on a server.
pub(super) struct Inner {
    pub(super) config: ServerConfig,
    /// For what must be flushed.
    pub(super) durable: Arc<Pool>,
    /// For claims: one that a crash of the server undoes is a message that comes again, as it would anyway.
    pub(super) relaxed: Arc<Pool>,
    pub(super) known: Known,
    pub(super) marks: Marks,
    /// This process's name among the owners of temporary queues.
    pub(super) owner: String,
    pub(super) sharing: Sharing,
    pub(super) later: Mutex<Vec<Later>>,
    pub(super) later_arrived: Notify,
}

/// Something that somebody who could not wait asked for.
pub(super) enum Later {
    PutBack(QueueId, Lease, Box<dyn FnOnce() + Send>),
    RemoveTemporary(QueueName),
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Inner {
    pub(super) fn new(config: ServerConfig) -> Self {
        let pool = |flush| Pool::new(config.clone(), flush, Pool::share(flush, config.connections));
        Self {
            durable: pool(Flush::Server),
            relaxed: pool(Flush::Later),
            config,
            known: Known::default(),
            marks: Marks::default(),
            owner: MessageId::new().to_string(),
            sharing: Sharing::default(),
            later: Mutex::default(),
            later_arrived: Notify::new(),
        }
    }

    /// Tries at work that must be flushed.
    pub(super) fn durably(&self, repeat: Repeat) -> Tries {
        Tries::new(&self.durable, self.config.patience, repeat)
    }

    /// Does what somebody asked for who could not wait.
    pub(super) async fn do_later(&self) {
        let later = std::mem::take(&mut *lock(&self.later));
        let mut returned: HashMap<QueueId, Vec<(Lease, Fate)>> = HashMap::new();
        let mut finish = Vec::new();
        for one in later {
            match one {
                Later::PutBack(queue, lease, then) => {
                    returned.entry(queue).or_default().push((lease, Fate::Dropped));
                    finish.push(then);
                }
                Later::RemoveTemporary(name) => {
                    if let Err(error) = self.remove_temporary(&name).await {
                        tracing::warn!(
                            error = error.report(),
                            "a temporary queue goes only with this process"
                        );
                    }
                }
            }
        }
        for (queue, batch) in returned {
            if let Err(error) = self.settle(queue, &batch, true).await {
                tracing::warn!(error = error.report(), "dropped deliveries come again when their leases end");
            }
        }
        finish.into_iter().for_each(|then| then());
    }

    pub(super) async fn remove_temporary(&self, name: &QueueName) -> Result<()> {
        work!(self.durably(Repeat::Freely), connection => {
            match owners::temporary(connection, name, &self.owner).await? {
                Some(queue) => owners::remove(connection, queue).await,
                None => Ok(()),
            }
        })
    }

    pub(super) async fn settle(
        &self,
        queue: QueueId,
        batch: &[(Lease, Fate)],
        wakes: bool,
    ) -> Result<Vec<Option<i64>>> {
        let stood = work!(self.durably(Repeat::Never), connection => {
            let stood = settle::settle(connection, queue, batch).await?;
            if wakes {
                tell(connection, &[queue]).await?;
            }
            Ok(stood)
        });
        if wakes {
            self.marks.forget(queue);
        }
        stood
    }

    pub(super) async fn claim(&self, claim: Claim, deliver: Deliver) -> Result<Delivered> {
        loop {
            let (found, next_due) = work!(Tries::new(&self.relaxed, self.config.patience, Repeat::Freely), connection => {
                let found = claim::claim(connection, &claim, &self.marks).await?;
                let next_due = match found.is_empty() {
                    true => claim::next_due(connection, &claim).await?,
                    false => None,
                };
                Ok((found, next_due))
            })?;
            let was_empty = found.is_empty();
            let (dead, good): (Vec<Found>, Vec<Found>) =
                found.into_iter().partition(|found| found.failure().is_some());
            // Delivered first: what burying fails for goes back to the queue with them.
            let deliveries: Vec<_> = good.into_iter().map(|found| deliver(found.into_claimed())).collect();
            if !dead.is_empty() {
                self.bury(claim.queue, &dead).await?;
            }
            if was_empty || !deliveries.is_empty() {
                return Ok(Delivered { deliveries, next_due });
            }
        }
    }

    /// Makes dead letters of what was claimed and is not to be handed over.
    pub(super) async fn bury(&self, queue: QueueId, found: &[Found]) -> Result<()> {
        work!(self.durably(Repeat::Freely), connection => {
            connection.begin().await?;
            for found in found {
                let Some(failure) = found.failure() else { continue };
                let dead = Dead {
                    held: Held { item: 0, end: found.end, id: found.id },
                    // It was not handed over this time.
                    attempt: found.attempt - 1,
                    first_failed_at: found.first_failed_at,
                    envelope: &found.content.envelope,
                };
                settle::bury(connection, queue, &dead, &failure).await?;
            }
            connection.commit().await
        })
    }

    pub(super) async fn remove(&self, name: &QueueName, which: Which) -> Result<u64> {
        let (queue, newest) = work!(self.durably(Repeat::Freely), connection => {
            let queue = queues::queue(connection, name).await?;
            Ok((queue, queues::newest(connection, queue).await?))
        })?;
        let mut removed = 0;
        loop {
            let chunk = work!(self.durably(Repeat::Freely), connection => {
                queues::remove(connection, (queue, which), newest, CHUNK_MAX).await
            })?;
            removed += chunk;
            if chunk < CHUNK_MAX as u64 {
                return Ok(removed);
            }
        }
    }

    pub(super) async fn dead_ids(&self, name: &QueueName, query: &DeadQuery) -> Result<Vec<i64>> {
        let letters =
            work!(self.durably(Repeat::Freely), connection => dead::list(connection, name, query).await)?;
        Ok(letters.into_iter().map(|(id, _)| id).collect())
    }
}

/// Tells other processes of queues, where the engine can.
pub(super) async fn tell(connection: &mut Connection, queues: &[QueueId]) -> Result<()> {
    match connection {
        #[cfg(feature = "postgres")]
        Connection::Postgres(connection) => postgres::tell(connection, queues).await,
        #[cfg(feature = "mysql")]
        Connection::MySql(_) => Ok(()),
    }
}
