//! Batches that wait to be stored at the same moment share a statement, and its flush.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use estafette_core::{ErrorKind, Outgoing, Result};
use tokio::sync::oneshot;

use super::{
    pool::Pool,
    publish::{Batch, Known, Within, publish},
    work::{Repeat, Tries, work},
};
use crate::store::Stored;

/// How many messages share a statement, and how many bytes about; a batch that is larger goes alone.
const SHARED_MAX: usize = 1000;
const SHARED_BYTES_MAX: usize = 4 << 20;

/// Where batches wait for a connection. As many as there are callers: each waits for its own.
#[derive(Default)]
pub(crate) struct Sharing(Mutex<VecDeque<Publication>>);

/// A batch that waits to be stored.
struct Publication {
    messages: Vec<Outgoing>,
    stored: oneshot::Sender<Result<Stored>>,
}

impl Sharing {
    /// Lets a batch wait until [`store`](Self::store) takes it along.
    pub(crate) fn enter(&self, messages: Vec<Outgoing>, stored: oneshot::Sender<Result<Stored>>) {
        self.lock().push_back(Publication { messages, stored });
    }

    /// Stores what waits when there is a connection, if another call has not by then.
    pub(crate) async fn store(&self, pool: &Arc<Pool>, known: &Known, patience: Duration) {
        let group: Mutex<Option<Vec<Publication>>> = Mutex::new(None);

        let outcome = work!(Tries::new(pool, patience, Repeat::Never), connection => {
            let batch = {
                let mut group = group.lock().unwrap_or_else(PoisonError::into_inner);
                let group = group.get_or_insert_with(|| self.take());
                Batch::new(group.iter().flat_map(|one| one.messages.iter().cloned()).collect())?
            };
            publish(connection, known, &batch, Within::Nothing).await
        });
        let group = group.into_inner().unwrap_or_else(PoisonError::into_inner);
        let group = group.unwrap_or_else(|| self.take());
        match outcome {
            Err(error) if group.len() > 1 && !matters_to_all(error.kind()) => {
                // It is somebody's error: whose, only trying shows.
                for one in group {
                    answer(
                        one.stored,
                        work!(Tries::new(pool, patience, Repeat::Never), connection => {
                            publish(connection, known, &Batch::new(one.messages.clone())?, Within::Nothing).await
                        }),
                    );
                }
            }
            Ok(all) => share_out(group, all),
            Err(error) => group.into_iter().for_each(|one| answer(one.stored, Err(error.clone()))),
        }
    }

    /// Takes the first of those that wait, and with them as many as may share a statement.
    fn take(&self) -> Vec<Publication> {
        let mut waiting = self.lock();
        let (mut messages, mut bytes, mut count) = (0, 0, 0);
        for one in waiting.iter() {
            messages += one.messages.len();
            bytes += one.messages.iter().map(|message| message.envelope.body.len()).sum::<usize>();
            if count > 0 && (messages > SHARED_MAX || bytes > SHARED_BYTES_MAX) {
                break;
            }
            count += 1;
        }
        waiting.drain(..count).collect()
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Publication>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether an error says nothing about the messages.
fn matters_to_all(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::Unavailable | ErrorKind::TimedOut | ErrorKind::Closed | ErrorKind::Full)
}

/// Gives each batch the receipts of its messages.
fn share_out(group: Vec<Publication>, all: Stored) {
    let mut receipts = all.receipts.into_iter();
    for one in group {
        let receipts = receipts.by_ref().take(one.messages.len()).collect();
        // Of the queues each wakes all: a look too many harms nobody.
        answer(one.stored, Ok(Stored { receipts, queues: all.queues.clone() }));
    }
}

fn answer(stored: oneshot::Sender<Result<Stored>>, outcome: Result<Stored>) {
    // Nobody waits for it any more if that fails.
    drop(stored.send(outcome));
}
