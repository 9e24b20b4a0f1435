//! Publish a message here, consume it there: a type with a topic, a directory in between.
//!
//! Run: cargo run --example 01_publish_and_consume
//! Expect:
//! | stored …, taken by Queues(1)
//! | to bob@example.com: welcome, Bob
//! | 1 acked, 0 retried, 0 dead (queue empty)
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "an example")]

use estafette::{Bus, Context, Message, QueueSpec};
use serde::{Deserialize, Serialize};

#[derive(Message, Serialize, Deserialize)]
#[message(topic = "email.welcome")]
struct WelcomeEmail {
    to: String,
    name: String,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    // A directory; another process may open the same one.
    let bus = Bus::connect("file:./mail").await?;

    // A message is kept for the queues there are. Consumers declare theirs; here the publisher comes first.
    bus.declare(&QueueSpec::durable("mailer".try_into()?).subscribe("email.*".try_into()?)).await?;

    let mail = WelcomeEmail { to: "bob@example.com".into(), name: "Bob".into() };
    let receipt = bus.publish(&mail).await?;
    println!("stored {}, taken by {:?}", receipt.id, receipt.routing);

    let summary = bus
        .consumer("mailer")
        .subscribe::<WelcomeEmail>()
        .handle(|mail: WelcomeEmail, _: Context| async move {
            println!("to {}: welcome, {}", mail.to, mail.name);
        })
        .run_until_empty() // or run(), run_for_count(10), run_for(five seconds)
        .await?;
    println!("{summary}");
    Ok(())
}
