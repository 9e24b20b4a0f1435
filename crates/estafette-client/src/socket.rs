//! One WebSocket to one node, with limits on every wait.

use std::time::Duration;

use estafette_core::{Error, ErrorKind, Result};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::{net::TcpStream, time::Instant};
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{
        Error as SocketError, Message,
        client::IntoClientRequest as _,
        http::{HeaderValue, StatusCode, header::AUTHORIZATION},
        protocol::WebSocketConfig,
    },
};

use crate::{builder::Settings, discovery::Node, wire::Frame};

/// Nothing heard for this long means that the node is gone: it pings every 30 s, and is pinged as well.
const SILENCE_MAX: Duration = Duration::from_secs(75);

/// When to ask a node that says nothing.
pub(crate) const PING_EVERY: Duration = Duration::from_secs(25);

/// For anything to be written.
const WRITE_TIME_MAX: Duration = Duration::from_secs(10);

/// Bytes of one message.
const MESSAGE_MAX: usize = 64 << 20;

/// A WebSocket to a node.
pub(crate) struct Socket {
    stream: WebSocketStream<TcpStream>,
    heard: Instant,
}

impl Socket {
    pub(crate) async fn connect(settings: &Settings, node: &Node) -> Result<Self> {
        let connecting = Self::open(settings, node);
        let opened = tokio::time::timeout(settings.connect_time_max, connecting).await;
        opened.map_err(|elapsed| Error::new(ErrorKind::Unavailable, elapsed))?
    }

    async fn open(settings: &Settings, node: &Node) -> Result<Self> {
        let address = &node.address;
        let mut request = format!("ws://{address}/ws/v1")
            .into_client_request()
            .map_err(|error| Error::new(ErrorKind::InvalidInput, error))?;
        if let Some(authorization) = &settings.authorization {
            let value = HeaderValue::from_str(authorization);
            let value = value.map_err(|error| Error::new(ErrorKind::InvalidInput, error))?;
            request.headers_mut().insert(AUTHORIZATION, value);
        }
        let stream = TcpStream::connect(address.as_str()).await;
        let stream = stream.map_err(|error| Error::new(ErrorKind::Unavailable, error))?;
        stream.set_nodelay(true).map_err(|error| Error::new(ErrorKind::Unavailable, error))?;
        let config =
            WebSocketConfig::default().max_message_size(Some(MESSAGE_MAX)).max_frame_size(Some(MESSAGE_MAX));
        let (stream, _) = client_async_with_config(request, stream, Some(config)).await.map_err(failed)?;
        Ok(Self { stream, heard: Instant::now() })
    }

    /// The next answer or event. Waits without limit; dropping the future loses nothing.
    pub(crate) async fn next(&mut self) -> Result<Frame> {
        loop {
            let message = self.stream.next().await.ok_or_else(closed)?.map_err(failed)?;
            self.heard = Instant::now();
            match message {
                Message::Text(text) => return Frame::parse(&text),
                Message::Close(_) => return Err(closed()),
                // Pings are answered by the stream itself.
                _ => {}
            }
        }
    }

    /// Writes requests, all at once.
    pub(crate) async fn send(&mut self, texts: Vec<String>) -> Result<()> {
        let writing = async {
            for text in texts {
                self.stream.feed(Message::text(text)).await?;
            }
            self.stream.flush().await
        };
        limited(writing).await
    }

    /// Asks a silent node for a sign of life.
    ///
    /// # Errors
    ///
    /// [`Unavailable`](ErrorKind::Unavailable) when it has been silent for too long.
    pub(crate) async fn ping(&mut self) -> Result<()> {
        if self.heard.elapsed() > SILENCE_MAX {
            return Err(Error::new(ErrorKind::Unavailable, "nothing was heard from the node"));
        }
        limited(self.stream.send(Message::Ping(Vec::new().into()))).await
    }

    /// Starts the silence anew, after a time in which nobody listened.
    pub(crate) fn listen_again(&mut self) {
        self.heard = Instant::now();
    }

    pub(crate) async fn close(mut self) {
        // The node notices the end of the connection either way.
        if let Err(error) = limited(self.stream.close(None)).await {
            tracing::debug!(error = error.report(), "a connection was not closed properly");
        }
    }
}

async fn limited(writing: impl Future<Output = Result<(), SocketError>>) -> Result<()> {
    match tokio::time::timeout(WRITE_TIME_MAX, writing).await {
        Ok(written) => written.map_err(failed),
        Err(elapsed) => Err(Error::new(ErrorKind::Unavailable, elapsed)),
    }
}

fn closed() -> Error {
    Error::new(ErrorKind::Unavailable, "the node closed the connection")
}

fn failed(error: SocketError) -> Error {
    let kind = match &error {
        SocketError::Http(answer)
            if matches!(answer.status(), StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) =>
        {
            ErrorKind::Denied
        }
        SocketError::Capacity(_) => ErrorKind::TooLarge,
        _ => ErrorKind::Unavailable,
    };
    Error::new(kind, error)
}

/// How long to wait before the next attempt.
pub(crate) struct Backoff {
    first: Duration,
    failures: u32,
}

impl Backoff {
    /// Doubled this often at most.
    const DOUBLINGS_MAX: u32 = 4;

    pub(crate) fn new(first: Duration) -> Self {
        Self { first, failures: 0 }
    }

    pub(crate) fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// Waits: longer each time, and not exactly as long as others do.
    pub(crate) async fn pause(&mut self) {
        let pause = self.first * 2_u32.pow(self.failures.min(Self::DOUBLINGS_MAX));
        self.failures += 1;
        tokio::time::sleep(pause.mul_f64(1.0 + fastrand::f64() / 4.0)).await;
    }
}
