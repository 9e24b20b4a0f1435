//! The ways a run ends, and what becomes of what is in hand: nothing is lost, nothing is spent.
//!
//! Run: cargo run --example 06_stop_gracefully
//! Expect:
//! | handling 1
//! | done with 1
//! | 1 acked, 0 retried, 0 dead… (asked to stop)
//! | 2 ready for the next run
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "an example")]

use std::{sync::Arc, time::Duration};

use estafette::{Bus, Context, QueueName, QueueSpec};
use tokio::sync::Notify;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let bus = Bus::connect("memory:").await?;
    let queue: QueueName = "slow".try_into()?;
    bus.declare(&QueueSpec::durable(queue.clone()).subscribe("number".try_into()?)).await?;
    for number in ["1", "2", "3"] {
        bus.publish_body("number", number).require_queue().await?;
    }

    let begun = Arc::new(Notify::new());
    let stop = Arc::clone(&begun);
    let summary = bus
        .consumer("slow")
        .handle_any(move |context: Context| {
            let begun = Arc::clone(&begun);
            async move {
                let number = String::from_utf8_lossy(&context.envelope().body).into_owned();
                println!("handling {number}");
                begun.notify_one();
                tokio::time::sleep(Duration::from_millis(100)).await;
                println!("done with {number}");
            }
        })
        .grace(Duration::from_secs(5)) // for what is running; the rest goes back untouched
        // Asked to stop while the first handler runs. `run()` stops at SIGTERM in the same way.
        .run_until(async move { stop.notified().await })
        .await?;
    println!("{summary}");
    println!("{} ready for the next run", bus.admin().queue(&queue).await?.ready);
    Ok(())
}
