//! Settings of a client.

use std::{fmt, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use estafette_core::Result;

use crate::client::Client;

/// What a client is told before it connects.
#[derive(Clone)]
pub struct Builder {
    pub(crate) settings: Settings,
}

#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) host: String,
    /// The value of the `Authorization` header.
    pub(crate) authorization: Option<String>,
    pub(crate) nodes_every: Duration,
    pub(crate) connect_time_max: Duration,
    pub(crate) answer_time_max: Duration,
    pub(crate) reconnect_after: Duration,
    pub(crate) messages_max: usize,
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder").field("host", &self.settings.host).finish_non_exhaustive()
    }
}

impl Default for Builder {
    fn default() -> Self {
        let settings = Settings {
            host: "127.0.0.1:6787".into(),
            authorization: None,
            nodes_every: Duration::from_secs(60),
            connect_time_max: Duration::from_secs(5),
            answer_time_max: Duration::from_secs(5),
            reconnect_after: Duration::from_secs(1),
            messages_max: 256,
        };
        Self { settings }
    }
}

impl Builder {
    /// The discovery address of any node, `host:port`; 127.0.0.1:6787 by default.
    #[must_use]
    pub fn host(mut self, host: impl Into<String>) -> Self {
        self.settings.host = host.into();
        self
    }

    /// A user of the gateway's `access.users`; none by default. They are sent unencrypted.
    #[must_use]
    pub fn credentials(mut self, username: &str, password: &str) -> Self {
        let encoded = STANDARD.encode(format!("{username}:{password}"));
        self.settings.authorization = Some(format!("Basic {encoded}"));
        self
    }

    /// How often to ask which nodes there are; 60 s by default.
    #[must_use]
    pub fn nodes_every(mut self, interval: Duration) -> Self {
        self.settings.nodes_every = interval;
        self
    }

    /// For connecting to a node, its handshake included; 5 s by default.
    #[must_use]
    pub fn connect_time_max(mut self, limit: Duration) -> Self {
        self.settings.connect_time_max = limit;
        self
    }

    /// For a request, waiting for a connection included; 5 s by default.
    #[must_use]
    pub fn answer_time_max(mut self, limit: Duration) -> Self {
        self.settings.answer_time_max = limit;
        self
    }

    /// Between a connection's end and the next attempt; 1 s by default. It doubles with every attempt that fails, up
    /// to sixteen times.
    #[must_use]
    pub fn reconnect_after(mut self, pause: Duration) -> Self {
        self.settings.reconnect_after = pause;
        self
    }

    /// Messages kept for a consumer that is busy, 256 by default; with more, the gateway keeps them.
    #[must_use]
    pub fn messages_max(mut self, messages: usize) -> Self {
        self.settings.messages_max = messages.max(1);
        self
    }

    /// Asks which nodes there are, and starts.
    ///
    /// # Errors
    ///
    /// [`Unavailable`](estafette_core::ErrorKind::Unavailable) when the discovery address does not answer,
    /// [`Unsupported`](estafette_core::ErrorKind::Unsupported) when it does not know version 1 of the API,
    /// [`Undecodable`](estafette_core::ErrorKind::Undecodable) when it is something else than a gateway.
    pub async fn build(self) -> Result<Client> {
        Client::start(self.settings).await
    }
}
