//! What the processes do, each until it is killed: begin again after every error.

use std::{sync::Arc, time::Duration};

use estafette_core::{BoxError, Envelope, Outcome, QueueName, ReceiveOptions, Transport, settle_all};
use estafette_outbox::{Inbox, Outbox, Relay, Store};

use crate::support::Link;

pub(crate) const ROLE: &str = "ESTAFETTE_CRASH_ROLE";
pub(crate) const DATABASE: &str = "ESTAFETTE_CRASH_DATABASE";
pub(crate) const QUEUE: &str = "ESTAFETTE_CRASH_QUEUE";

/// Short, so that what the killed held comes back while the torment lasts.
const LEASE: Duration = Duration::from_secs(2);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Writes orders with their events, and now and then thinks better of it.
    Program,
    /// Publishes them.
    Relay,
    /// Writes an effect for each event, once.
    Consumer,
}

impl Role {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Program => "program",
            Self::Relay => "relay",
            Self::Consumer => "consumer",
        }
    }
}

/// A word that the topics of a queue's test have to themselves.
pub(crate) fn word(queue: &QueueName) -> String {
    queue.as_str().replace('.', "-")
}

/// The tests' RabbitMQ.
pub(crate) async fn broker() -> Arc<dyn Transport> {
    let url = std::env::var("ESTAFETTE_TEST_AMQP_URL").unwrap_or_else(|_| panic!("see scripts/services env"));
    loop {
        match estafette_amqp::connect(url.parse().unwrap()).await {
            Ok(broker) => return broker,
            Err(error) => assert!(error.is_retryable(), "{}", error.report()),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Plays the role the environment names; without one, nothing.
#[tokio::main(flavor = "current_thread")]
pub(crate) async fn play() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let database = std::env::var(DATABASE).unwrap();
    let queue: QueueName = std::env::var(QUEUE).unwrap().try_into().unwrap();
    loop {
        let ended: Result<(), BoxError> = match role.as_str() {
            "program" => program(&database, &queue).await,
            "relay" => relay(&database).await,
            _ => consumer(&database, &queue).await,
        };
        // Whatever it was: a database that is away, a broker that is away, a transaction that lost a race.
        drop(ended);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn program(database: &str, queue: &QueueName) -> Result<(), BoxError> {
    let mut link = Link::open(database).await?;
    let outbox = Outbox::new("program");
    loop {
        let id = i64::from(fastrand::u32(..)) << 16 | i64::from(fastrand::u16(..));
        let envelope = Envelope::new(format!("crash.{}", word(queue)).try_into()?, id.to_string().into());
        link.script(begin(&link)).await?;
        link.script(&format!("INSERT INTO orders (id) VALUES ({id})")).await?;
        outbox.envelope(envelope).subject("order", id % 10).publish(link.executor()).await?;
        if fastrand::u8(..5) == 0 {
            link.script("ROLLBACK").await?;
        } else {
            link.script("COMMIT").await?;
        }
        tokio::time::sleep(Duration::from_millis(fastrand::u64(1..10))).await;
    }
}

async fn relay(database: &str) -> Result<(), BoxError> {
    let store = Store::open(database)?;
    let relay = Relay::new(store, broker().await).lease(LEASE).batch(20).poll(Duration::from_millis(20));
    relay.run_until(std::future::pending()).await?;
    Ok(())
}

async fn consumer(database: &str, queue: &QueueName) -> Result<(), BoxError> {
    let mut link = Link::open(database).await?;
    let broker = broker().await;
    let inbox = Inbox::new(queue.clone());
    let mut receiver = broker.receiver(queue, ReceiveOptions::default()).await?;
    loop {
        for delivery in receiver.receive(10, Duration::from_secs(1)).await? {
            let envelope = delivery.envelope().clone();
            let id: i64 = std::str::from_utf8(&envelope.body)?.parse()?;
            link.script(begin(&link)).await?;
            if inbox.once(link.executor(), &envelope.id).await? {
                link.script(&format!("INSERT INTO effects (id) VALUES ({id})")).await?;
            }
            link.script("COMMIT").await?;
            // Sometimes not, as if it had died just here.
            if fastrand::u8(..10) > 0 {
                settle_all(vec![(delivery, Outcome::Ack)]).await;
            }
        }
    }
}

/// SQLite's plain BEGIN would take the lock later, when it may be too late to get it.
fn begin(link: &Link) -> &'static str {
    if matches!(link, Link::Sqlite(_)) { "BEGIN IMMEDIATE" } else { "BEGIN" }
}
