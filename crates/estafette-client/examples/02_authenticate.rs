//! Keep who a user is in the connection's context.
//!
//! Run: cargo run -p estafette-client --example 02_authenticate
//! Expect:
//! | login as {}
//! | then as {"user_id":1000}
#![allow(clippy::print_stdout, reason = "an example")]

mod support;

use estafette_client::{Client, StreamExt as _};
use serde_json::Value;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let stage = support::Stage::start().await?;
    let mut user = stage.user().await?;
    let client = Client::builder().host(&stage.host).build().await?;
    let mut messages = client.consume(["foo"]);

    user.say("userauth").await?;
    let Some(message) = messages.next().await else { return Ok(()) };
    let message = message?;
    println!("login as {}", context(&message.data()?));

    // Here a program looks the user up. A script that holds the connection in `wait_context_value("user_id")` goes on
    // as soon as this is set.
    client.set_context_value(message.connection()?, "user_id", 1000).await?;

    user.say("what is new?").await?;
    if let Some(message) = messages.next().await {
        println!("then as {}", context(&message?.data()?));
    }
    Ok(())
}

fn context(data: &Value) -> String {
    data.get("context").map(Value::to_string).unwrap_or_default()
}
