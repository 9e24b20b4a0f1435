//! An order and its event commit or roll back together: Diesel.
//!
//! Run: cargo run -p estafette-outbox --example 03_diesel --features diesel-sqlite
//! Expect:
//! | order 1: Ok(())
//! | order 2: Err(RollbackTransaction)
//! | orders: 1, published: 1
#![allow(clippy::print_stdout, missing_docs, reason = "an example")]

use std::sync::Arc;

use diesel::{Connection as _, QueryDsl as _, RunQueryDsl as _, SqliteConnection, result::Error};
use estafette_core::{Envelope, QueueSpec, Transport as _};
use estafette_memory::MemoryTransport;
use estafette_outbox::{Outbox, Relay, Store};

diesel::table! {
    orders (id) {
        id -> BigInt,
    }
}

/// An order and its event, in one transaction.
fn create(database: &mut SqliteConnection, id: i64) -> Result<(), Error> {
    use diesel::ExpressionMethods as _;

    let outbox = Outbox::new("shop");
    database.transaction(|transaction| {
        diesel::insert_into(orders::table).values(orders::id.eq(id)).execute(transaction)?;
        // An event without a type of its own: a topic and a body.
        let topic = estafette_core::Topic::from_static("order.created");
        let event = Envelope::new(topic, format!("{{\"id\":{id}}}").into());
        outbox
            .envelope(event)
            .subject("order", id)
            .publish_blocking(transaction)
            .map_err(|error| Error::QueryBuilderError(Box::new(error)))?;
        if id == 2 { Err(Error::RollbackTransaction) } else { Ok(()) }
    })
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("shop.db").display().to_string();
    let store = Store::open(&format!("sqlite:{path}"))?;
    store.init().await?;
    let mut database = SqliteConnection::establish(&path)?;
    diesel::sql_query("CREATE TABLE orders (id BIGINT PRIMARY KEY)").execute(&mut database)?;
    for id in [1, 2] {
        println!("order {id}: {:?}", create(&mut database, id));
    }

    let broker = Arc::new(MemoryTransport::default());
    let queue = QueueSpec::durable("billing".try_into()?).subscribe("order.*".try_into()?);
    broker.declare(&queue).await?;
    Relay::new(store, broker.clone()).run_until_empty().await?;
    let count: i64 = orders::table.count().get_result(&mut database)?;
    println!("orders: {count}, published: {}", broker.admin().queue(&queue.name).await?.ready);
    Ok(())
}
