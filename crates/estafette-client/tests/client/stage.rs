//! A gateway whose users' messages go to the queue `foo`, and its management API.

use std::{net::SocketAddr, time::Duration};

use estafette_client::{Builder, Client, Consumer, Message, StreamExt};
use estafette_gateway::{
    Gateway, ServerSettings,
    api::{Api, ApiHandle, ApiSettings, User},
};
use futures_util::SinkExt;
use serde_json::{json, value::to_raw_value};
use tokio::{net::TcpStream, sync::oneshot, task::JoinHandle};
use tokio_tungstenite::{WebSocketStream, client_async, tungstenite};

pub(crate) const WAIT_MAX: Duration = Duration::from_secs(20);

pub(crate) async fn within<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(WAIT_MAX, what).await.expect("it takes too long")
}

pub(crate) struct Stage {
    pub(crate) gateway: Gateway,
    settings: ApiSettings,
    pub(crate) handle: ApiHandle,
    api: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

impl Stage {
    pub(crate) async fn new() -> Self {
        Self::with("n1", 1, Vec::new()).await
    }

    pub(crate) async fn with(name: &str, number: u16, users: Vec<User>) -> Self {
        let gateway = Gateway::builder()
            .node(name, number)
            .cores(1)
            .grace(Duration::from_millis(50))
            .listen(ServerSettings::websocket("127.0.0.1:0".parse().unwrap()))
            .on_message(|peer, message| {
                let data = json!({"frame": {"data": String::from_utf8_lossy(message.data)}});
                peer.push("foo", to_raw_value(&data).unwrap()).unwrap();
            })
            .start()
            .await
            .unwrap();
        let any = || Some("127.0.0.1:0".parse().unwrap());
        let mut settings =
            ApiSettings { management: any(), discovery: any(), users, ..ApiSettings::default() };
        let api = Api::bind(settings.clone(), gateway.hub().clone()).await.unwrap();
        (settings.management, settings.discovery) = (api.management_address(), api.discovery_address());
        let handle = api.handle();
        let mut stage = Self { gateway, settings, handle, api: None };
        stage.serve(api);
        stage
    }

    fn serve(&mut self, api: Api) {
        let (stop, stopped) = oneshot::channel::<()>();
        self.api = Some((stop, tokio::spawn(api.serve(async { drop(stopped.await) }))));
    }

    /// Ends the management API; users stay connected.
    pub(crate) async fn stop_api(&mut self) {
        let (stop, served) = self.api.take().unwrap();
        drop(stop);
        within(served).await.unwrap();
    }

    /// Listens again, on the addresses from before.
    pub(crate) async fn start_api(&mut self) {
        let api = within(async {
            loop {
                match Api::bind(self.settings.clone(), self.gateway.hub().clone()).await {
                    Ok(api) => break api,
                    Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
        })
        .await;
        self.serve(api);
    }

    pub(crate) fn management(&self) -> SocketAddr {
        self.settings.management.unwrap()
    }

    pub(crate) fn builder(&self) -> Builder {
        builder(&self.settings.discovery.unwrap().to_string())
    }

    pub(crate) async fn client(&self) -> Client {
        self.builder().build().await.unwrap()
    }

    pub(crate) async fn user(&self) -> Browser {
        let address = self.gateway.addresses()[0];
        let stream = TcpStream::connect(address).await.unwrap();
        Browser(client_async(format!("ws://{address}/"), stream).await.unwrap().0)
    }

    /// Messages and consumers of `foo`.
    pub(crate) fn depth(&self) -> (usize, usize) {
        let depths = self.gateway.hub().queues().depths();
        depths
            .iter()
            .find(|depth| depth.name == "foo")
            .map_or((0, 0), |depth| (depth.messages, depth.consumers))
    }

    pub(crate) async fn until(&self, mut holds: impl FnMut(&Self) -> bool) {
        within(async {
            while !holds(self) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        })
        .await;
    }
}

/// Settings with short pauses.
pub(crate) fn builder(host: &str) -> Builder {
    Client::builder()
        .host(host)
        .nodes_every(Duration::from_millis(20))
        .reconnect_after(Duration::from_millis(10))
        .answer_time_max(WAIT_MAX)
}

/// A user's browser.
pub(crate) struct Browser(WebSocketStream<TcpStream>);

impl Browser {
    pub(crate) async fn say(&mut self, text: &str) {
        self.0.send(tungstenite::Message::text(text)).await.unwrap();
    }

    pub(crate) async fn hear(&mut self) -> String {
        loop {
            let message = within(self.0.next()).await.unwrap().unwrap();
            if message.is_text() || message.is_binary() {
                return String::from_utf8_lossy(&message.into_data()).into_owned();
            }
        }
    }
}

/// The next message, past the errors of connections that broke.
pub(crate) async fn next(consumer: &mut Consumer) -> Message {
    within(async {
        loop {
            if let Ok(message) = consumer.next().await.expect("the stream ended") {
                return message;
            }
        }
    })
    .await
}

pub(crate) fn text(message: &Message) -> String {
    let data: serde_json::Value = message.data().unwrap();
    data["frame"]["data"].as_str().unwrap().to_owned()
}
