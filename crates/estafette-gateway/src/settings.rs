//! What a server is told: addresses, limits and times, with their defaults.

use std::{net::SocketAddr, time::Duration};

use crate::websocket::{decoder, handshake::HandshakeLimits};

/// What a server speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// WebSocket, RFC 6455.
    WebSocket,
    /// Bytes over TCP, cut into packets by a script.
    Socket,
}

/// One listening address and how its connections are treated.
#[derive(Debug, Clone)]
pub struct ServerSettings {
    /// Where it listens; port 0 takes a free one.
    pub bind: SocketAddr,
    /// What it speaks.
    pub protocol: Protocol,
    /// The path that is asked for; any by default.
    pub path: Option<String>,
    /// The sub-protocols it knows, the most wanted first.
    pub protocols: Vec<String>,
    /// Origins beside its own host whose pages may connect; `*` is all.
    pub origins: Vec<String>,
    /// Free values for scripts: `mix.server.option(name)`.
    pub options: Vec<(String, String)>,
    /// What it accepts.
    pub limits: Limits,
}

/// What one connection may take and how long it may take for it.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Messages and their fragments; 1 MiB and 1,024 by default.
    pub message: decoder::Limits,
    /// The opening request; 8 KiB by default.
    pub handshake: HandshakeLimits,
    /// From accepting to the end of the handshake; 10 s by default.
    pub handshake_time: Duration,
    /// Without a byte from the peer, which is asked by a ping at half of it; 60 s by default.
    pub read_time: Duration,
    /// Without progress while something waits to be written; 10 s by default.
    pub write_time: Duration,
    /// Bytes that wait to be written; 1 MiB by default. More means a slow reader, which is closed.
    pub queued_max: usize,
    /// Bytes received and not taken by a script's protocol; 1 MiB by default.
    pub buffer_max: usize,
    /// Connections of this server on this node; 100,000 by default.
    pub connections_max: usize,
    /// Channels of one connection; 1,000 by default.
    pub channels_max: usize,
    /// Bytes of a channel's name; 255 by default.
    pub channel_name_max: usize,
    /// Bytes of one connection's context, as JSON; 64 KiB by default.
    pub context_max: usize,
    /// How long `wait_context_value` waits; 30 s by default.
    pub wait_time: Duration,
    /// Messages kept while a connection is held, before its socket is not read any more; 16 by default.
    pub held_messages_max: usize,
    /// Bytes kept while a connection is held; 64 KiB by default.
    pub held_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message: decoder::Limits::default(),
            handshake: HandshakeLimits::default(),
            handshake_time: Duration::from_secs(10),
            read_time: Duration::from_secs(60),
            write_time: Duration::from_secs(10),
            queued_max: 1 << 20,
            buffer_max: 1 << 20,
            connections_max: 100_000,
            channels_max: 1_000,
            channel_name_max: 255,
            context_max: 64 << 10,
            wait_time: Duration::from_secs(30),
            held_messages_max: 16,
            held_bytes_max: 64 << 10,
        }
    }
}

impl ServerSettings {
    /// A WebSocket server at `bind`.
    #[must_use]
    pub fn websocket(bind: SocketAddr) -> Self {
        Self::new(bind, Protocol::WebSocket)
    }

    /// A server of raw sockets at `bind`.
    #[must_use]
    pub fn socket(bind: SocketAddr) -> Self {
        Self::new(bind, Protocol::Socket)
    }

    fn new(bind: SocketAddr, protocol: Protocol) -> Self {
        Self {
            bind,
            protocol,
            path: None,
            protocols: Vec::new(),
            origins: Vec::new(),
            options: Vec::new(),
            limits: Limits::default(),
        }
    }
}
