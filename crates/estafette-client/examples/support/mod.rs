//! What the examples run against: a gateway in this process, and a user with a WebSocket.
//!
//! The gateway does what a small script would: what a user says goes to the queue `foo`, with the connection's context.

#![allow(dead_code, clippy::unwrap_used, reason = "shared by examples that use parts of it")]

use estafette_client::StreamExt as _;
use estafette_gateway::{
    Gateway, ServerSettings,
    api::{Api, ApiSettings},
};
use futures_util::SinkExt as _;
use serde_json::{json, value::to_raw_value};
use tokio::net::TcpStream;
use tokio_tungstenite::{WebSocketStream, client_async, tungstenite::Message};

/// A gateway that runs as long as it is held.
pub(crate) struct Stage {
    gateway: Gateway,
    /// Its discovery address.
    pub(crate) host: String,
}

impl Stage {
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let gateway = Gateway::builder()
            .listen(ServerSettings::websocket("127.0.0.1:0".parse()?))
            .grace(std::time::Duration::ZERO)
            .on_message(|peer, message| {
                let said = String::from_utf8_lossy(message.data);
                let data = json!({ "frame": { "data": said }, "context": peer.context() });
                if let Ok(data) = to_raw_value(&data)
                    && let Err(error) = peer.push("foo", data)
                {
                    tracing::warn!(%error, "the user was not heard");
                }
            })
            .start()
            .await?;
        let any = Some("127.0.0.1:0".parse()?);
        let settings = ApiSettings { management: any, discovery: any, ..ApiSettings::default() };
        let api = Api::bind(settings, gateway.hub().clone()).await?;
        let host = api.discovery_address().unwrap().to_string();
        tokio::spawn(api.serve(std::future::pending()));
        Ok(Self { gateway, host })
    }

    pub(crate) async fn user(&self) -> anyhow::Result<Browser> {
        let address = self.gateway.addresses().first().copied().unwrap();
        let stream = TcpStream::connect(address).await?;
        Ok(Browser(client_async(format!("ws://{address}/"), stream).await?.0))
    }
}

/// A user's browser.
pub(crate) struct Browser(WebSocketStream<TcpStream>);

impl Browser {
    pub(crate) async fn say(&mut self, text: &str) -> anyhow::Result<()> {
        Ok(self.0.send(Message::text(text)).await?)
    }

    pub(crate) async fn hear(&mut self) -> anyhow::Result<String> {
        loop {
            match self.0.next().await {
                Some(Ok(Message::Text(text))) => return Ok(text.to_string()),
                Some(Ok(_)) => {}
                other => anyhow::bail!("the connection ended: {other:?}"),
            }
        }
    }
}
