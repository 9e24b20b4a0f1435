//! Group a user's connections in a channel, and reach all of them.
//!
//! Run: cargo run -p estafette-client --example 03_channels
//! Expect:
//! | subscribed: the phone and the computer
//! | published to 2 connections
//! | the phone hears: {"broadcast":"ok"}
//! | the computer hears: {"broadcast":"ok"}
//! | after the phone left: 1
#![allow(clippy::print_stdout, reason = "an example")]

mod support;

use estafette_client::{Client, StreamExt as _};
use serde_json::json;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let stage = support::Stage::start().await?;
    let (mut phone, mut computer) = (stage.user().await?, stage.user().await?);
    let client = Client::builder().host(&stage.host).build().await?;
    let mut messages = client.consume(["foo"]);

    let mut connections = Vec::new();
    for device in [&mut phone, &mut computer] {
        device.say("login").await?;
        if let Some(message) = messages.next().await {
            let connection = message?.connection()?;
            client.subscribe(connection, ["user_10001"]).await?;
            connections.push(connection);
        }
    }
    println!("subscribed: the phone and the computer");

    // From any program, to connections on all nodes; nobody has to have consumed anything.
    let published = client.publish_json("user_10001", &json!({ "broadcast": "ok" })).await?;
    println!("published to {} connections", published.success);
    println!("the phone hears: {}", phone.hear().await?);
    println!("the computer hears: {}", computer.hear().await?);

    if let Some(phone) = connections.first() {
        client.unsubscribe(*phone, ["user_10001"]).await?;
    }
    let published = client.publish("user_10001", "again").await?;
    println!("after the phone left: {}", published.success);
    Ok(())
}
