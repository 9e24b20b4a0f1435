//! From a topic to the queues subscribed to it.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use estafette_core::{
    Destination, Error, Lifetime, Outgoing, QueueName, QueueSpec, Receipt, Result, Routing, Timestamp, Topic,
};

use crate::{Shared, error, queue::Queue};

/// How many topics' queues are remembered; beyond that the memory is emptied and fills again.
const REMEMBERED_TOPICS_MAX: usize = 10_000;

/// Every queue, and which of them take a topic.
#[derive(Debug)]
pub(crate) struct Routes {
    messages_max: usize,
    table: RwLock<Table>,
}

#[derive(Debug, Default)]
struct Table {
    queues: BTreeMap<QueueName, Arc<Queue>>,
    by_topic: HashMap<Topic, Arc<[Arc<Queue>]>>,
}

impl Routes {
    pub(crate) fn new(messages_max: usize) -> Self {
        Self { messages_max, table: RwLock::default() }
    }

    fn read(&self) -> RwLockReadGuard<'_, Table> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Table> {
        self.table.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn declare(&self, spec: &QueueSpec) -> Result<()> {
        let mut table = self.write();
        let queue = table.queue_or_new(&spec.name, spec.lifetime, self.messages_max);
        if queue.lifetime != spec.lifetime {
            return Err(error::lifetime_conflict(&spec.name));
        }
        let mut state = queue.lock();
        for pattern in &spec.patterns {
            if !state.patterns.contains(pattern) {
                state.patterns.push(pattern.clone());
            }
        }
        drop(state);
        table.by_topic.clear();
        Ok(())
    }

    pub(crate) fn queue(&self, name: &QueueName) -> Result<Arc<Queue>> {
        self.read().queues.get(name).cloned().ok_or_else(|| Error::no_queue(name))
    }

    pub(crate) fn queues(&self) -> Vec<Arc<Queue>> {
        self.read().queues.values().cloned().collect()
    }

    pub(crate) fn queue_or_new(&self, name: &QueueName) -> Arc<Queue> {
        if let Some(queue) = self.read().queues.get(name) {
            return Arc::clone(queue);
        }
        self.write().queue_or_new(name, Lifetime::Durable, self.messages_max)
    }

    pub(crate) fn remove(&self, name: &QueueName) -> Result<()> {
        let mut table = self.write();
        let queue = table.queues.remove(name).ok_or_else(|| Error::no_queue(name))?;
        table.by_topic.clear();
        queue.lock().deleted = true;
        queue.arrived.notify_waiters();
        Ok(())
    }

    /// Forgets which queues take which topic, after a subscription changed.
    pub(crate) fn forget_topics(&self) {
        self.write().by_topic.clear();
    }

    pub(crate) fn wake_all(&self) {
        for queue in self.queues() {
            queue.arrived.notify_waiters();
        }
    }

    fn subscribed(&self, topic: &Topic) -> Arc<[Arc<Queue>]> {
        if let Some(queues) = self.read().by_topic.get(topic) {
            return Arc::clone(queues);
        }
        let mut table = self.write();
        let takes = |queue: &&Arc<Queue>| queue.lock().patterns.iter().any(|pattern| pattern.matches(topic));
        let queues: Arc<[Arc<Queue>]> = table.queues.values().filter(takes).cloned().collect();
        if table.by_topic.len() >= REMEMBERED_TOPICS_MAX {
            table.by_topic.clear();
        }
        table.by_topic.insert(topic.clone(), Arc::clone(&queues));
        queues
    }
}

impl Table {
    fn queue_or_new(&mut self, name: &QueueName, lifetime: Lifetime, messages_max: usize) -> Arc<Queue> {
        let new = || Arc::new(Queue::new(name.clone(), lifetime, messages_max));
        Arc::clone(self.queues.entry(name.clone()).or_insert_with(new))
    }
}

impl Shared {
    pub(crate) fn publish(&self, outgoing: &Outgoing, now: Timestamp) -> Result<Receipt> {
        self.check_open()?;
        let envelope = &outgoing.envelope;
        let max = self.config.body_bytes_max;
        if envelope.body.len() > max {
            return Err(error::too_large(envelope.body.len(), max));
        }
        let push = |queue: &Queue| queue.push(Arc::clone(envelope), outgoing.delay, now);
        let count = match &outgoing.destination {
            Destination::Queue(name) if outgoing.require_queue => {
                push(&*self.routes.queue(name).map_err(|_missing| error::no_such_queue(name))?)?;
                1
            }
            Destination::Queue(name) => {
                push(&self.routes.queue_or_new(name))?;
                1
            }
            Destination::Topic => {
                let queues = self.routes.subscribed(&envelope.topic);
                if queues.is_empty() && outgoing.require_queue {
                    return Err(error::unroutable(&envelope.topic));
                }
                // Looked at before any copy is stored, so that a full queue does not leave copies in the others.
                queues.iter().try_for_each(|queue| queue.check_room())?;
                queues.iter().try_for_each(|queue| push(queue))?;
                queues.len()
            }
        };
        Ok(Receipt { id: envelope.id.clone(), routing: Routing::to_queues(count) })
    }
}
