//! A memory transport and the few words the tests use of it.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use estafette_consumer::{Consumer, Context};
use estafette_core::{
    Bytes, DeadLetter, DeadQuery, Delivery, Envelope, Message, Outgoing, QueueName, QueueSpec, QueueStatus,
    ReceiveOptions, Topic, Transport,
};
use estafette_macros::Message;
use estafette_memory::MemoryTransport;
use serde::{Deserialize, Serialize};

#[derive(Message, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[message(crate = "estafette_core", topic = "order.created", key = "customer")]
pub(crate) struct Order {
    pub(crate) id: u64,
    pub(crate) customer: String,
}

#[derive(Message, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[message(crate = "estafette_core", topic = "invoice.sent")]
pub(crate) struct Invoice {
    pub(crate) number: u64,
}

pub(crate) fn order(id: u64) -> Order {
    Order { id, customer: "c".into() }
}

/// The handler of a message that must not reach one.
pub(crate) async fn not_to_be_handled(_: Order, _: Context) {
    panic!("not to be handled");
}

/// The queue of nearly every test.
pub(crate) fn queue() -> QueueName {
    "billing".try_into().unwrap()
}

#[derive(Clone)]
pub(crate) struct Stage {
    pub(crate) memory: MemoryTransport,
}

impl Stage {
    pub(crate) fn new() -> Self {
        Self { memory: MemoryTransport::new() }
    }

    /// A stage whose queue holds the orders with these ids.
    pub(crate) async fn with_orders(ids: impl IntoIterator<Item = u64>) -> Self {
        let stage = Self::new();
        for id in ids {
            stage.send(&order(id)).await;
        }
        stage
    }

    pub(crate) fn transport(&self) -> Arc<dyn Transport> {
        Arc::new(self.memory.clone())
    }

    pub(crate) fn consumer(&self) -> Consumer {
        Consumer::new(self.transport(), queue())
    }

    pub(crate) async fn send<M: Message>(&self, message: &M) {
        self.put(Outgoing::send(queue(), Envelope::of(message).unwrap())).await;
    }

    pub(crate) async fn send_later<M: Message>(&self, message: &M, delay: Duration) {
        let outgoing = Outgoing::send(queue(), Envelope::of(message).unwrap());
        self.put(Outgoing { delay, ..outgoing }).await;
    }

    pub(crate) async fn send_body(&self, topic: &'static str, body: &'static [u8]) {
        let envelope = Envelope::new(Topic::from_static(topic), Bytes::from_static(body));
        self.put(Outgoing::send(queue(), envelope)).await;
    }

    pub(crate) async fn put(&self, outgoing: Outgoing) {
        self.memory.publish(&[outgoing]).await.pop().unwrap().unwrap();
    }

    pub(crate) async fn status(&self) -> QueueStatus {
        self.memory.admin().queue(&queue()).await.unwrap()
    }

    pub(crate) async fn dead(&self) -> Vec<DeadLetter> {
        self.memory.admin().dead(&queue(), &DeadQuery::all()).await.unwrap()
    }

    /// The only dead letter.
    pub(crate) async fn dead_letter(&self) -> DeadLetter {
        let mut letters = self.dead().await;
        assert_eq!(letters.len(), 1, "{letters:?}");
        letters.remove(0)
    }

    /// Takes what is ready without settling it.
    pub(crate) async fn take(&self, max: usize) -> Vec<Delivery> {
        self.memory.declare(&QueueSpec::durable(queue())).await.unwrap();
        let mut receiver = self.memory.receiver(&queue(), ReceiveOptions::default()).await.unwrap();
        receiver.receive(max, Duration::ZERO).await.unwrap()
    }
}

/// What handlers note down, to be looked at afterwards.
pub(crate) struct Notes<T>(Arc<Mutex<Vec<T>>>);

impl<T> Clone for Notes<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T: Clone> Notes<T> {
    pub(crate) fn new() -> Self {
        Self(Arc::default())
    }

    pub(crate) fn add(&self, note: T) {
        self.0.lock().unwrap().push(note);
    }

    pub(crate) fn all(&self) -> Vec<T> {
        self.0.lock().unwrap().clone()
    }
}

/// A number handlers raise.
#[derive(Clone, Default)]
pub(crate) struct Counter(Arc<AtomicU64>);

impl Counter {
    /// Raises it by one and returns what it is now.
    pub(crate) fn raise(&self) -> u64 {
        self.0.fetch_add(1, Ordering::SeqCst) + 1
    }

    pub(crate) fn lower(&self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }

    pub(crate) fn value(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}
