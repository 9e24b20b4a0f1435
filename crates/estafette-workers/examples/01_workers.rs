//! Four workers and a scheduler: messages to all, a request to one, and the end.
//!
//! Run: cargo run -p estafette-workers --example 01_workers
//! Expect, in any order but the last:
//! | [scheduler] worker 2 says: 6 times 7 is 42
//! | [0] time for a break, says scheduler
//! | [1] time for a break, says scheduler
//! | [2] time for a break, says scheduler
//! | [3] time for a break, says scheduler

use std::{io::Write as _, time::Duration};

use estafette_core::{BoxError, Error, Result};
use estafette_macros::Message;
use estafette_workers::{Context, To, Worker, Workers};
use serde::{Deserialize, Serialize};

#[derive(Message, Serialize, Deserialize)]
#[message(topic = "multiply", crate = "estafette_core")]
struct Multiply {
    left: u64,
    right: u64,
}

fn main() -> Result<()> {
    Workers::builder(4).name("example-01").process("scheduler", schedule).run(work)
}

/// What each of the four does: listen until it is told to stop.
async fn work(worker: Worker) -> Result<()> {
    worker.on_message(|task: Multiply, context: Context| async move {
        let product = task.left * task.right;
        let here = context.worker().address().clone();
        Ok::<_, Error>(format!("worker {here} says: {} times {} is {product}", task.left, task.right))
    });
    worker.on("break", |reason: String, context: Context| async move {
        writeln!(std::io::stdout(), "{reason}, says {}", context.from())
    });
    worker.stopping().await;
    Ok(())
}

/// The process beside them.
async fn schedule(worker: Worker) -> Result<(), BoxError> {
    let task = Multiply { left: 6, right: 7 };
    let reply: String = worker.request_message(&task, To::One(2), Duration::from_secs(5)).await?;
    writeln!(std::io::stdout(), "{reply}")?;
    let count = worker.send("break", &"time for a break", To::All).await?;
    assert_eq!(count, 4, "all workers are there");
    worker.stop_group().await?;
    worker.stopping().await;
    Ok(())
}
