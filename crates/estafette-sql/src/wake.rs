//! Waking receivers that wait, from inside this process and, by the store's own means, from others.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::sync::Notify;

use crate::routes::QueueId;

/// The receivers of this process, by queue, and whether any of them waits.
#[derive(Debug, Default)]
pub(crate) struct Wake {
    queues: Mutex<HashMap<QueueId, Receivers>>,
    waiting: AtomicUsize,
    /// A receiver began to wait, or the transport closes.
    pub(crate) changed: Notify,
}

#[derive(Debug, Default)]
struct Receivers {
    count: usize,
    arrived: Arc<Notify>,
}

impl Wake {
    /// Enters a receiver of `queue` and returns what wakes it.
    pub(crate) fn enter(&self, queue: QueueId) -> Arc<Notify> {
        let mut queues = self.lock();
        let receivers = queues.entry(queue).or_default();
        receivers.count += 1;
        Arc::clone(&receivers.arrived)
    }

    /// Takes a receiver of `queue` out and returns how many are left.
    pub(crate) fn leave(&self, queue: QueueId) -> usize {
        let mut queues = self.lock();
        let Some(receivers) = queues.get_mut(&queue) else { return 0 };
        receivers.count = receivers.count.saturating_sub(1);
        let left = receivers.count;
        // Whoever leaves may have been woken for a message it did not take.
        receivers.arrived.notify_one();
        if left == 0 {
            queues.remove(&queue);
        }
        left
    }

    /// Wakes one receiver of each of `queues`. Who finds more than it can take wakes the next.
    pub(crate) fn arrived(&self, queues: &[QueueId]) {
        let receivers = self.lock();
        for queue in queues {
            if let Some(receivers) = receivers.get(queue) {
                receivers.arrived.notify_one();
            }
        }
    }

    /// Wakes a receiver of every queue.
    pub(crate) fn all(&self) {
        self.lock().values().for_each(|receivers| receivers.arrived.notify_one());
    }

    /// Wakes every receiver there is.
    pub(crate) fn everybody(&self) {
        self.lock().values().for_each(|receivers| {
            receivers.arrived.notify_waiters();
            receivers.arrived.notify_one();
        });
        self.changed.notify_one();
    }

    /// The queues that have receivers here.
    #[cfg(any(feature = "postgres", feature = "mysql"))]
    pub(crate) fn queues(&self) -> Vec<QueueId> {
        self.lock().keys().copied().collect()
    }

    /// Counts a receiver as waiting for as long as the guard lives.
    pub(crate) fn wait(&self) -> Waiting<'_> {
        if self.waiting.fetch_add(1, Ordering::AcqRel) == 0 {
            self.changed.notify_one();
        }
        Waiting(self)
    }

    /// Whether any receiver waits.
    pub(crate) fn is_awaited(&self) -> bool {
        self.waiting.load(Ordering::Acquire) > 0
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<QueueId, Receivers>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A receiver that waits.
pub(crate) struct Waiting<'w>(&'w Wake);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}
