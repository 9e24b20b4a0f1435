//! What the suite does not ask for: other Gearman programs, servers that go away, topics by list, and crashes.
//!
//! Needs gearmand and the tool `gearman`, from Debian's packages.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    unreachable_pub,
    reason = "a test fails by panicking, in its helpers too"
)]

mod crash;
mod foreign;
mod servers;
mod topics;

use std::{sync::Arc, time::Duration};

use estafette_core::{
    Delivery, Envelope, MessageId, Outgoing, QueueName, QueueSpec, ReceiveOptions, Receiver, Topic, Transport,
};
use tempfile::TempDir;

const TOPIC: Topic = Topic::from_static("order.created");

/// A handle with a state directory of its own.
struct Place {
    state: TempDir,
    transport: Arc<dyn Transport>,
    queue: QueueName,
}

fn server() -> String {
    let Ok(url) = std::env::var("ESTAFETTE_TEST_GEARMAN_URL") else {
        panic!(
            "this test needs gearmand: run `scripts/services up`, then `eval \"$(scripts/services env)\"`"
        );
    };
    url
}

async fn connect(url: &str) -> Arc<dyn Transport> {
    estafette_gearman::connect(url.parse().unwrap()).await.unwrap()
}

fn unique() -> QueueName {
    QueueName::try_from(format!("test-{}", MessageId::new())).unwrap()
}

async fn place(settings: &str) -> Place {
    let state = TempDir::new().unwrap();
    let transport = connect(&format!("{}?state={}{settings}", server(), state.path().display())).await;
    let queue = unique();
    transport.declare(&QueueSpec::durable(queue.clone())).await.unwrap();
    Place { state, transport, queue }
}

impl Place {
    async fn receiver(&self) -> Box<dyn Receiver> {
        self.transport.receiver(&self.queue, ReceiveOptions::default()).await.unwrap()
    }

    async fn send(&self, body: &str) -> MessageId {
        let envelope = Envelope::new(TOPIC, body.to_owned().into());
        let outgoing = Outgoing::send(self.queue.clone(), envelope);
        publish(&*self.transport, outgoing).await
    }
}

async fn publish(transport: &dyn Transport, outgoing: Outgoing) -> MessageId {
    transport.publish(&[outgoing]).await.remove(0).unwrap().id
}

async fn take_one(receiver: &mut Box<dyn Receiver>) -> Delivery {
    let mut taken = receiver.receive(1, Duration::from_secs(20)).await.unwrap();
    assert_eq!(taken.len(), 1, "a message should come");
    taken.remove(0)
}
