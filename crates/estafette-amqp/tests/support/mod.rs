//! What tests against a real broker share: how to reach it, and a proxy that misbehaves.

#![allow(dead_code, unreachable_pub, reason = "each test program uses some of it")]
#![allow(clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use anyhow::Result;
use estafette_core::Transport;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{Notify, watch},
};

/// The broker's URL.
pub fn url() -> String {
    let Ok(url) = std::env::var("ESTAFETTE_TEST_AMQP_URL") else {
        panic!(
            "this test needs RabbitMQ: run `scripts/services up`, then `eval \"$(scripts/services env)\"`"
        );
    };
    url
}

/// Host and port of the broker.
pub fn address() -> String {
    let url = url();
    let authority = url.trim_start_matches("amqp://").split(['/', '?']).next().unwrap_or_default().to_owned();
    authority.rsplit('@').next().unwrap_or_default().to_owned()
}

/// A transport with these settings.
pub async fn connect(settings: &str) -> Result<Arc<dyn Transport>> {
    Ok(estafette_amqp::connect(format!("{}?{settings}", url()).parse()?).await?)
}

/// A transport that reaches the broker through the proxy.
pub async fn connect_through(proxy: &Proxy, settings: &str) -> Result<Arc<dyn Transport>> {
    Ok(estafette_amqp::connect(url_through(proxy, settings).parse()?).await?)
}

/// The URL that leads through the proxy.
pub fn url_through(proxy: &Proxy, settings: &str) -> String {
    let url = url().replace(&address(), &format!("127.0.0.1:{}", proxy.port));
    format!("{url}?{settings}")
}

/// Carries connections to the broker until told otherwise.
#[derive(Clone)]
pub struct Proxy {
    port: u16,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    cut: Notify,
    /// The client was told that it is blocked.
    told: Notify,
    refuses: AtomicBool,
    /// Connections made before this count carry nothing any more.
    stalled_before: AtomicU64,
    connections: AtomicU64,
    /// The connection on which nothing is taken from the client.
    blocked: watch::Sender<Option<u64>>,
}

/// `connection.blocked` and `connection.unblocked`, as the broker sends them.
const BLOCKED: &[u8] = b"\x01\0\0\0\0\0\x0b\0\x0a\0\x3c\x06memory\xce";
const UNBLOCKED: &[u8] = b"\x01\0\0\0\0\0\x04\0\x0a\0\x3d\xce";

impl Proxy {
    pub async fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let proxy = Self { port: listener.local_addr()?.port(), state: Arc::default() };
        let state = Arc::clone(&proxy.state);
        let broker = address();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if state.refuses.load(Ordering::Acquire) {
                    continue;
                }
                tokio::spawn(carry(client, broker.clone(), Arc::clone(&state)));
            }
        });
        Ok(proxy)
    }

    /// Ends every connection.
    pub fn cut(&self) {
        self.state.cut.notify_waiters();
    }

    /// Refuses new connections, or not any more.
    pub fn refuse(&self, refuse: bool) {
        self.state.refuses.store(refuse, Ordering::Release);
    }

    /// Blocks the connection of this number, counted from 0, as a broker low on memory does. Nothing may be on its way on it.
    /// Returns when the client was told.
    pub async fn block(&self, number: u64) {
        self.state.blocked.send_replace(Some(number));
        self.state.told.notified().await;
    }

    /// Ends the block.
    pub fn unblock(&self) {
        self.state.blocked.send_replace(None);
    }

    /// Lets everything on the present connections disappear, without ending them.
    pub fn stall(&self) {
        self.state.stalled_before.store(self.state.connections.load(Ordering::Acquire), Ordering::Release);
    }
}

async fn carry(mut client: TcpStream, broker: String, state: Arc<State>) {
    let number = state.connections.fetch_add(1, Ordering::AcqRel);
    let Ok(mut server) = TcpStream::connect(broker).await else { return };
    let is_stalled = || state.stalled_before.load(Ordering::Acquire) > number;
    let (mut from_client, mut from_server) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    let mut blocking = state.blocked.subscribe();
    let mut is_blocked = false;
    loop {
        tokio::select! {
            () = state.cut.notified() => return,
            Ok(()) = blocking.changed() => {
                let blocks = *blocking.borrow_and_update() == Some(number);
                if std::mem::replace(&mut is_blocked, blocks) == blocks {
                    continue;
                }
                let frame = if blocks { BLOCKED } else { UNBLOCKED };
                if client.write_all(frame).await.is_err() { return }
                if blocks {
                    state.told.notify_one();
                }
            }
            read = client.read(&mut from_client), if !is_blocked => match read {
                Ok(count) if count > 0 => {
                    if !is_stalled() && server.write_all(&from_client[..count]).await.is_err() { return }
                }
                _ => return,
            },
            read = server.read(&mut from_server) => match read {
                Ok(count) if count > 0 => {
                    if !is_stalled() && client.write_all(&from_server[..count]).await.is_err() { return }
                }
                _ => return,
            },
        }
    }
}
