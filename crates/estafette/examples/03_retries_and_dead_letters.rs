//! What becomes of failures: retries by a policy, refusals, dead letters, and putting them back.
//!
//! Run: cargo run --example 03_retries_and_dead_letters
//! Expect:
//! | invoice 1, attempt 1: the printer is offline
//! | invoice 2, attempt 1: no address, refused
//! | invoice 1, attempt 2: printed
//! | 1 acked, 1 retried, 1 dead (queue empty)
//! | dead: invoice.due, rejected after 1 attempt: no address
//! | 1 put back, 0 dead now
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "an example")]

use std::time::Duration;

use estafette::{Bus, Context, DeadQuery, Message, QueueName, QueueSpec, Retry, Verdict};
use serde::{Deserialize, Serialize};

#[derive(Message, Serialize, Deserialize)]
#[message(topic = "invoice.due", key = "id")]
struct InvoiceDue {
    id: u32,
}

async fn print(invoice: InvoiceDue, context: Context) -> anyhow::Result<Verdict> {
    let attempt = context.attempt();
    if invoice.id == 2 {
        println!("invoice 2, attempt {attempt}: no address, refused");
        return Ok(Verdict::reject("no address"));
    }
    if attempt == 1 {
        println!("invoice {}, attempt 1: the printer is offline", invoice.id);
        anyhow::bail!("the printer is offline"); // any error is a failed attempt
    }
    println!("invoice {}, attempt {attempt}: printed", invoice.id);
    Ok(Verdict::Ack)
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let bus = Bus::connect("memory:").await?;
    let printer: QueueName = "printer".try_into()?;
    bus.declare(&QueueSpec::durable(printer.clone()).subscribe("invoice.#".try_into()?)).await?;
    bus.publish_all([&InvoiceDue { id: 1 }, &InvoiceDue { id: 2 }])
        .await
        .into_iter()
        .collect::<Result<Vec<_>, _>>()?;

    let summary = bus
        .consumer("printer")
        .handle(print)
        .retry(Retry::exponential(Duration::from_millis(50)).attempts_max(3))
        .run_until_empty()
        .await?;
    println!("{summary}");

    for letter in bus.admin().dead(&printer, &DeadQuery::all()).await? {
        let (topic, reason, attempts) = (&letter.envelope.topic, letter.reason, letter.attempts);
        println!("dead: {topic}, {reason} after {attempts} attempt: {}", letter.error);
    }
    let redriven = bus.admin().redrive(&printer, &DeadQuery::all()).await?;
    println!("{redriven} put back, {} dead now", bus.admin().queue(&printer).await?.dead);
    Ok(())
}
