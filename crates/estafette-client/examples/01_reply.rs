//! Consume what users say, and answer them.
//!
//! Run: cargo run -p estafette-client --example 01_reply
//! Expect:
//! | the user hears: received: hello
//! | the user hears: and one more thing
#![allow(clippy::print_stdout, reason = "an example")]

mod support;

use estafette_client::{Client, StreamExt as _};
use serde_json::Value;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let stage = support::Stage::start().await?;
    let mut user = stage.user().await?;

    // The discovery address of any node; the client finds the others, and follows those that join and leave.
    let client = Client::builder().host(&stage.host).build().await?;
    let mut messages = client.consume(["foo"]);

    user.say("hello").await?;
    let Some(message) = messages.next().await else { return Ok(()) };
    // An error is about one connection, which is made again by itself.
    let message = message?;
    let connection = message.connection()?;
    let data: Value = message.data()?;
    let said = data.pointer("/frame/data").and_then(Value::as_str).unwrap_or_default();
    client.send(connection, format!("received: {said}")).await?;
    println!("the user hears: {}", user.hear().await?);

    // At any time, from any program that knows the connection: every node finds it.
    client.send(connection, "and one more thing").await?;
    println!("the user hears: {}", user.hear().await?);
    Ok(())
}
