//! Messages of the bus reach the users' open connections.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::time::Duration;

use estafette::{
    Bus, Message,
    gateway_client::{CHANNELS, Client, StreamExt as _},
};
use estafette_gateway::{
    Gateway, ServerSettings,
    api::{Api, ApiSettings},
};
use serde::{Deserialize, Serialize};
use tokio_tungstenite::client_async;

#[derive(Message, Serialize, Deserialize)]
#[message(topic = "order.shipped")]
struct OrderShipped {
    order: u64,
}

#[tokio::test]
async fn an_event_for_a_channel_reaches_its_subscribers() {
    let gateway = Gateway::builder()
        .cores(1)
        .grace(Duration::ZERO)
        .listen(ServerSettings::websocket("127.0.0.1:0".parse().unwrap()))
        .on_message(|peer, _| {
            peer.subscribe(&["user_10001".into()]).unwrap();
            peer.send(estafette_gateway::Payload::text("subscribed")).unwrap();
        })
        .start()
        .await
        .unwrap();
    let any = Some("127.0.0.1:0".parse().unwrap());
    let settings = ApiSettings { management: any, discovery: any, ..ApiSettings::default() };
    let api = Api::bind(settings, gateway.hub().clone()).await.unwrap();
    let host = api.discovery_address().unwrap().to_string();
    let api = tokio::spawn(api.serve(std::future::pending()));

    let address = gateway.addresses()[0];
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let (mut user, _) = client_async(format!("ws://{address}/"), stream).await.unwrap();
    // An empty text, masked: all that the gateway waits for.
    tokio::io::AsyncWriteExt::write_all(user.get_mut(), &[0x81, 0x80, 0, 0, 0, 0]).await.unwrap();
    assert_eq!(user.next().await.unwrap().unwrap().into_text().unwrap(), "subscribed");

    let bus = Bus::connect("memory:").await.unwrap();
    bus.declare(&estafette::QueueSpec::durable(CHANNELS.try_into().unwrap())).await.unwrap();
    bus.publish_to_channel("user_10001", &OrderShipped { order: 42 }).await.unwrap();
    bus.publish_to_channel("nobody", &OrderShipped { order: 43 }).await.unwrap();
    let client = Client::builder().host(host).build().await.unwrap();
    let summary = bus.channel_forwarder(client).run_until_empty().await.unwrap();
    assert_eq!((summary.acked, summary.dead), (2, 0));
    let heard = user.next().await.unwrap().unwrap().into_text().unwrap();
    assert_eq!(heard, r#"{"order":42}"#);
    api.abort();
}
