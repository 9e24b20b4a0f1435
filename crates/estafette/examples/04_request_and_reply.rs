//! A request whose reply comes back, with a time limit; an error comes back too.
//!
//! Run: cargo run --example 04_request_and_reply
//! Expect:
//! | 12 / 4 = 3
//! | 1 / 0: the handler refused: division by zero
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "an example")]

use std::{error::Error, time::Duration};

use estafette::{Bus, Context, Message, QueueSpec};
use serde::{Deserialize, Serialize};

#[derive(Message, Serialize, Deserialize)]
#[message(topic = "divide")]
struct Divide(i64, i64);

#[derive(Debug, Message, Serialize, Deserialize)]
#[message(topic = "quotient")]
struct Quotient(i64);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let bus = Bus::connect("memory:").await?;
    bus.declare(&QueueSpec::durable("divider".try_into()?).subscribe("divide".try_into()?)).await?;
    let divider =
        bus.consumer("divider")
            .subscribe::<Divide>()
            .reply(|Divide(a, b), _: Context| async move {
                a.checked_div(b).map(Quotient).ok_or("division by zero")
            })
            .run();
    let divider = tokio::spawn(divider);

    let limit = Duration::from_secs(5);
    let Quotient(three) = bus.request(&Divide(12, 4), limit).await?;
    println!("12 / 4 = {three}");
    let refused = bus.request::<_, Quotient>(&Divide(1, 0), limit).await.unwrap_err();
    println!("1 / 0: {}", refused.source().map(ToString::to_string).unwrap_or_default());
    divider.abort();
    Ok(())
}
