//! An order and its event commit or roll back together: sqlx.
//!
//! Run: cargo run -p estafette-outbox --example 01_sqlx
//! Expect:
//! | order 1 committed, order 2 rolled back
//! | published: {"id":1}
//! | the second delivery of the same message changes nothing: true, then false
#![allow(clippy::print_stdout, reason = "an example")]

use std::{sync::Arc, time::Duration};

use estafette_core::{Json, Message, QueueSpec, ReceiveOptions, Topic, Transport as _};
use estafette_memory::MemoryTransport;
use estafette_outbox::{Inbox, Outbox, Relay, Store};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct OrderCreated {
    id: i64,
}

// With the façade crate: #[derive(Message)] and #[message(topic = "order.created")].
impl Message for OrderCreated {
    const TOPIC: Topic = Topic::from_static("order.created");
    type Codec = Json;

    /// Events of one order stay in order.
    fn subject(&self) -> Option<String> {
        Some(self.id.to_string())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let url = format!("sqlite:{}/shop.db", folder.path().display());
    let store = Store::open(&url)?;
    store.init().await?; // or: estafette outbox init
    let pool = sqlx::SqlitePool::connect(&url).await?;
    sqlx::query("CREATE TABLE orders (id INTEGER PRIMARY KEY)").execute(&pool).await?;

    let outbox = Outbox::new("shop");
    for (id, is_good) in [(1, true), (2, false)] {
        let mut transaction = pool.begin().await?;
        sqlx::query("INSERT INTO orders (id) VALUES (?)").bind(id).execute(&mut *transaction).await?;
        outbox.publish(&mut transaction, &OrderCreated { id }).await?;
        if is_good {
            transaction.commit().await?;
            outbox.committed(); // a relay in this process looks at once
        } else {
            transaction.rollback().await?;
        }
    }
    println!("order 1 committed, order 2 rolled back");

    let broker = Arc::new(MemoryTransport::default());
    let queue = QueueSpec::durable("billing".try_into()?).subscribe("order.*".try_into()?);
    broker.declare(&queue).await?;
    Relay::new(store, broker.clone()).run_until_empty().await?; // or: estafette outbox relay

    let mut receiver = broker.receiver(&queue.name, ReceiveOptions::default()).await?;
    for delivery in receiver.receive(10, Duration::from_secs(1)).await? {
        println!("published: {}", String::from_utf8_lossy(&delivery.envelope().body));
        let inbox = Inbox::new(queue.name.clone());
        let mut transaction = pool.begin().await?;
        let first = inbox.once(&mut transaction, &delivery.envelope().id).await?;
        let again = inbox.once(&mut transaction, &delivery.envelope().id).await?;
        transaction.commit().await?;
        println!("the second delivery of the same message changes nothing: {first}, then {again}");
        delivery.ack().await?;
    }
    Ok(())
}
