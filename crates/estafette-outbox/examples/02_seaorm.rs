//! An order and its event commit or roll back together: SeaORM.
//!
//! Run: cargo run -p estafette-outbox --example 02_seaorm --features seaorm
//! Expect:
//! | order 1 committed, order 2 rolled back
//! | orders: 1, published: 1
#![allow(clippy::print_stdout, missing_docs, unreachable_pub, reason = "an example")]

use std::sync::Arc;

use estafette_core::{Json, Message, QueueSpec, Topic, Transport as _};
use estafette_memory::MemoryTransport;
use estafette_outbox::{Outbox, Relay, Store};
use sea_orm::{ActiveModelTrait as _, ActiveValue::Set, Database, EntityTrait as _, TransactionTrait as _};
use serde::{Deserialize, Serialize};

mod order {
    //! The table of the application.
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "orders")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: i64,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

#[derive(Serialize, Deserialize)]
struct OrderCreated {
    id: i64,
}

impl Message for OrderCreated {
    const TOPIC: Topic = Topic::from_static("order.created");
    type Codec = Json;
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let url = format!("sqlite:{}/shop.db", folder.path().display());
    let store = Store::open(&url)?;
    store.init().await?;
    let database = Database::connect(&url).await?;
    database.get_schema_builder().register(order::Entity).apply(&database).await?;

    let outbox = Outbox::new("shop");
    for (id, is_good) in [(1, true), (2, false)] {
        let mut transaction = database.begin().await?;
        order::ActiveModel { id: Set(id) }.insert(&transaction).await?;
        outbox.entry(&OrderCreated { id }).subject("order", id).publish(&mut transaction).await?;
        if is_good { transaction.commit().await? } else { transaction.rollback().await? }
    }
    println!("order 1 committed, order 2 rolled back");

    let broker = Arc::new(MemoryTransport::default());
    let queue = QueueSpec::durable("billing".try_into()?).subscribe("order.*".try_into()?);
    broker.declare(&queue).await?;
    Relay::new(store, broker.clone()).run_until_empty().await?;
    let orders = order::Entity::find().all(&database).await?.len();
    println!("orders: {orders}, published: {}", broker.admin().queue(&queue.name).await?.ready);
    Ok(())
}
