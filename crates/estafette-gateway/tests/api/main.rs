//! The management API of a running gateway, as backends see it.
//!
//! Reading order: `peer` (a client that does what a test says), `requests`, `consuming`, `http`, `access`,
//! `processes_php` (the published clients).

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking, and its helpers are tests too"
)]

mod access;
mod consuming;
mod http;
mod peer;
mod processes_php;
mod requests;

use std::net::SocketAddr;

use estafette_gateway::{
    Gateway, Hub, ServerSettings,
    api::{Api, ApiHandle, ApiSettings},
    queues::QueueMessage,
};
use peer::{Peer, within};
use serde_json::{
    json,
    value::{RawValue, to_raw_value},
};
use tokio::{sync::oneshot, task::JoinHandle};

/// A gateway whose users' messages go to the queue `foo`, and its API.
struct Stage {
    gateway: Gateway,
    management: SocketAddr,
    discovery: SocketAddr,
    handle: ApiHandle,
    stop: Option<oneshot::Sender<()>>,
    api: JoinHandle<()>,
}

fn settings() -> ApiSettings {
    let any = || Some("127.0.0.1:0".parse().unwrap());
    ApiSettings { management: any(), discovery: any(), ..ApiSettings::default() }
}

impl Stage {
    async fn new() -> Self {
        Self::with(settings()).await
    }

    async fn with(settings: ApiSettings) -> Self {
        let gateway = Gateway::builder()
            .cores(2)
            // Its users have nothing to say good-bye for.
            .grace(std::time::Duration::from_millis(50))
            .listen(ServerSettings::websocket("127.0.0.1:0".parse().unwrap()))
            .on_message(|peer, message| {
                let data = json!({"frame": {"data": String::from_utf8_lossy(message.data)}});
                peer.push("foo", to_raw_value(&data).unwrap()).unwrap();
            })
            .start()
            .await
            .unwrap();
        let api = Api::bind(settings, gateway.hub().clone()).await.unwrap();
        let (management, discovery) = (api.management_address().unwrap(), api.discovery_address().unwrap());
        let handle = api.handle();
        let (stop, stopped) = oneshot::channel::<()>();
        let api = tokio::spawn(api.serve(async { drop(stopped.await) }));
        Self { gateway, management, discovery, handle, stop: Some(stop), api }
    }

    fn hub(&self) -> &Hub {
        self.gateway.hub()
    }

    async fn backend(&self) -> Peer {
        Peer::connect(self.management, "/ws/v1").await
    }

    async fn user(&self) -> Peer {
        Peer::connect(self.gateway.addresses()[0], "/").await
    }

    fn push(&self, queue: &str, data: &str) {
        let data = RawValue::from_string(data.into()).unwrap();
        let message = QueueMessage { node: "n1".into(), client_id: None, queue: queue.into(), data };
        self.hub().queues().push(message).unwrap();
    }

    /// Messages and consumers of a queue.
    fn depth(&self, queue: &str) -> (usize, usize) {
        let depths = self.hub().queues().depths();
        let depth = depths.iter().find(|depth| depth.name == queue);
        depth.map_or((0, 0), |depth| (depth.messages, depth.consumers))
    }

    async fn until(&self, mut holds: impl FnMut(&Self) -> bool) {
        within(async {
            while !holds(self) {
                tokio::time::sleep(std::time::Duration::from_millis(2)).await;
            }
        })
        .await;
    }

    async fn end(mut self) {
        drop(self.stop.take());
        within(self.api).await.unwrap();
        within(self.gateway.stop()).await;
    }
}
