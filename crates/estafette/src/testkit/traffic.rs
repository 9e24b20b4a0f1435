//! Whether messages may move, whether they did, and who has looked since.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use estafette_core::QueueName;
use tokio::sync::watch;

/// What the receivers and the one who drives them tell each other.
pub(super) struct Traffic {
    /// Grows when something changed that may give a receiver something to do.
    changes: watch::Sender<u64>,
    /// Grows also when a receiver took something, or looked and found nothing.
    progress: watch::Sender<u64>,
    /// How many runs go on. Without one nothing is handed over.
    runs: AtomicUsize,
    /// Deliveries handed over and not yet settled and written down.
    in_hand: AtomicUsize,
    opened: AtomicU64,
    receivers: Mutex<HashMap<u64, Place>>,
}

struct Place {
    queue: QueueName,
    /// After which change this receiver looked and found nothing.
    found_nothing_at: Option<u64>,
}

impl Traffic {
    pub(super) fn new() -> Self {
        Self {
            changes: watch::Sender::new(0),
            progress: watch::Sender::new(0),
            runs: AtomicUsize::new(0),
            in_hand: AtomicUsize::new(0),
            opened: AtomicU64::new(0),
            receivers: Mutex::default(),
        }
    }

    fn receivers(&self) -> MutexGuard<'_, HashMap<u64, Place>> {
        // A panic while it was held leaves nothing half done.
        self.receivers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets messages move as long as the returned value lives.
    pub(super) fn run(&self) -> Run<'_> {
        self.runs.fetch_add(1, Ordering::AcqRel);
        self.change();
        Run(self)
    }

    pub(super) fn is_running(&self) -> bool {
        self.runs.load(Ordering::Acquire) > 0
    }

    /// Something changed that may give a receiver something to do.
    pub(super) fn change(&self) {
        self.changes.send_modify(|count| *count += 1);
        self.progress();
    }

    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// How many changes there have been.
    pub(super) fn change_count(&self) -> u64 {
        *self.changes.borrow()
    }

    fn progress(&self) {
        self.progress.send_modify(|count| *count += 1);
    }

    /// Tells of changes and of receivers that looked.
    pub(super) fn watch_progress(&self) -> watch::Receiver<u64> {
        self.progress.subscribe()
    }

    pub(super) fn take_in_hand(&self, count: usize) {
        self.in_hand.fetch_add(count, Ordering::AcqRel);
        self.progress();
    }

    pub(super) fn let_go(&self, count: usize) {
        self.in_hand.fetch_sub(count, Ordering::AcqRel);
        self.change();
    }

    pub(super) fn in_hand(&self) -> usize {
        self.in_hand.load(Ordering::Acquire)
    }

    /// How many receivers were ever opened.
    pub(super) fn opened(&self) -> u64 {
        self.opened.load(Ordering::Acquire)
    }

    /// Whether every receiver of the queue has looked since the last of so many changes and found nothing; `None` when the
    /// queue has no receiver.
    pub(super) fn is_at_rest(&self, queue: &QueueName, changes: u64) -> Option<bool> {
        let receivers = self.receivers();
        let mut places = receivers.values().filter(|place| place.queue == *queue).peekable();
        places.peek()?;
        Some(places.all(|place| place.found_nothing_at == Some(changes)))
    }
}

/// A run that goes on.
pub(super) struct Run<'a>(&'a Traffic);

impl Drop for Run<'_> {
    fn drop(&mut self) {
        self.0.runs.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A receiver's entry among those that are watched.
pub(super) struct Watched {
    traffic: Arc<Traffic>,
    number: u64,
}

impl Watched {
    pub(super) fn new(traffic: &Arc<Traffic>, queue: &QueueName) -> Self {
        let number = traffic.opened.fetch_add(1, Ordering::AcqRel);
        traffic.receivers().insert(number, Place { queue: queue.clone(), found_nothing_at: None });
        traffic.progress();
        Self { traffic: Arc::clone(traffic), number }
    }

    /// After so many changes there was nothing for this receiver.
    pub(super) fn found_nothing(&self, changes: u64) {
        if let Some(place) = self.traffic.receivers().get_mut(&self.number) {
            place.found_nothing_at = Some(changes);
        }
        self.traffic.progress();
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.traffic.receivers().remove(&self.number);
        self.traffic.change();
    }
}
