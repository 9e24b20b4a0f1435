//! Several message types on one queue, each with its handler, and one for the rest.
//!
//! Run: cargo run --example 02_several_types
//! Expect:
//! | order 1 created
//! | order 1 shipped by rail
//! | order.cancelled: {"id":1}
//! | 3 acked, 0 retried, 0 dead (count reached)
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "an example")]

use estafette::{Bus, Context, Message, QueueSpec};
use serde::{Deserialize, Serialize};

#[derive(Message, Serialize, Deserialize)]
#[message(topic = "order.created")]
struct OrderCreated {
    id: u64,
}

#[derive(Message, Serialize, Deserialize)]
#[message(topic = "order.shipped")]
struct OrderShipped {
    id: u64,
    by: String,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let bus = Bus::connect("memory:").await?;
    bus.declare(&QueueSpec::durable("audit".try_into()?).subscribe("order.*".try_into()?)).await?;

    bus.publish(&OrderCreated { id: 1 }).await?;
    bus.publish(&OrderShipped { id: 1, by: "rail".into() }).await?;
    // No type of its own: a topic and a body.
    bus.publish_body("order.cancelled", r#"{"id":1}"#).await?;

    let summary = bus
        .consumer("audit")
        .subscribe_to("order.*")
        .handle(|order: OrderCreated, _: Context| async move { println!("order {} created", order.id) })
        .handle(|order: OrderShipped, _: Context| async move {
            println!("order {} shipped by {}", order.id, order.by)
        })
        .handle_any(|context: Context| async move {
            let envelope = context.envelope();
            println!("{}: {}", envelope.topic, String::from_utf8_lossy(&envelope.body));
        })
        .run_for_count(3)
        .await?;
    println!("{summary}");
    Ok(())
}
