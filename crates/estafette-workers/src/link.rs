//! Links: how messages get to one peer. The seam for peers on other hosts.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use async_trait::async_trait;
use bytes::BytesMut;
use estafette_core::{Error, Result};

use crate::{
    Address, Limits,
    endpoint::Endpoint,
    error::{ListenerError, kind_from_name},
    frame::Frame,
    pending::Pending,
    pipe::{Pipe, Put},
    socket::Reading,
    wire::{Decoder, Parcel},
};

/// A way to one peer that is open now.
///
/// Sockets of this host and the participant itself are the ways there are; a group that spans hosts adds one that carries the
/// same parcels over a broker, and nothing above this trait changes.
#[async_trait]
pub(crate) trait Link: Send + Sync {
    /// Gives a message, or a request when it has an id, to the link without waiting.
    fn put(&self, id: Option<u64>, parcel: &Parcel) -> Result<Put>;

    /// Waits until there may be room again, or the link is closed.
    async fn room(&self);

    /// The requests that wait for replies over this link.
    fn pending(&self) -> &Arc<Pending>;

    /// Whether a new link is needed for the next message.
    fn is_closed(&self) -> bool;

    /// Writes what waits, for at most as long as the endpoint's limits allow.
    async fn finish(&self, endpoint: &Endpoint);
}

/// A Unix socket to a peer of this host.
#[derive(Debug)]
pub(crate) struct SocketLink {
    peer: Address,
    pipe: Arc<Pipe>,
    pending: Arc<Pending>,
    retired: AtomicBool,
}

impl SocketLink {
    pub(crate) fn new(peer: Address, pipe: Arc<Pipe>, limits: &Limits) -> Self {
        let pending = Arc::new(Pending::new(peer.clone(), limits));
        Self { peer, pipe, pending, retired: AtomicBool::new(false) }
    }

    /// Reads replies until the connection ends. Run as a task of its own.
    pub(crate) async fn read(
        self: Arc<Self>,
        endpoint: Arc<Endpoint>,
        mut socket: Reading,
        mut buffer: BytesMut,
        mut decoder: Decoder,
    ) {
        let ended: Result<()> = loop {
            if let Err(error) = self.take_all(&endpoint, &mut buffer, &mut decoder) {
                break Err(error);
            }
            match socket.read(&mut buffer).await {
                Ok(0) => break Ok(()),
                Ok(_) => {}
                Err(error) => break Err(Error::new(estafette_core::ErrorKind::Closed, error)),
            }
        };
        if let Err(error) = ended {
            tracing::debug!(peer = %self.peer, error = %error.report(), "a connection ended");
        }
        self.retired.store(true, Ordering::Release);
        self.pipe.close();
        self.pending.close();
        let is_supervised = matches!(endpoint.address, Address::Worker(_) | Address::Process(_));
        if is_supervised && self.peer == Address::Supervisor && !*endpoint.stopping.borrow() {
            tracing::warn!("the supervisor is gone; stopping");
            endpoint.stopping.send_replace(true);
        }
    }

    fn take_all(
        self: &Arc<Self>,
        endpoint: &Arc<Endpoint>,
        buffer: &mut BytesMut,
        decoder: &mut Decoder,
    ) -> Result<()> {
        while let Some(frame) = decoder.decode(buffer)? {
            match frame {
                Frame::Reply { id, body } => self.resolve(endpoint, id, Ok(body)),
                Frame::Failure { id, refusal } => {
                    let from = self.peer.clone();
                    let kind = kind_from_name(&refusal.kind);
                    let error = Error::new(kind, ListenerError { from, message: refusal.message });
                    self.resolve(endpoint, id, Err(error));
                }
                Frame::Goodbye => self.retire(endpoint),
                _ => {
                    endpoint.counters.peers_dropped.count();
                    tracing::warn!(peer = %self.peer, "a peer answered with what is no answer; dropped");
                    return Err(crate::frame::undecodable("not an answer"));
                }
            }
        }
        Ok(())
    }

    fn resolve(&self, endpoint: &Endpoint, id: u64, outcome: Result<crate::frame::Body>) {
        if !self.pending.resolve(id, outcome) {
            endpoint.counters.replies_late.count();
            tracing::debug!(peer = %self.peer, id, "a reply came too late; dropped");
        }
    }

    /// The peer leaves: send it nothing more, but read its last replies. Beside the reader, which must go on meanwhile.
    fn retire(self: &Arc<Self>, endpoint: &Arc<Endpoint>) {
        self.retired.store(true, Ordering::Release);
        let (link, wait_max) = (Arc::clone(self), endpoint.limits.goodbye_wait_max);
        endpoint.spawn(async move {
            if let Err(error) = link.pipe.finish(wait_max).await {
                tracing::warn!(peer = %link.peer, error = %error.report(), "messages for a leaving peer are lost");
            }
        });
    }
}

#[async_trait]
impl Link for SocketLink {
    fn put(&self, id: Option<u64>, parcel: &Parcel) -> Result<Put> {
        if self.retired.load(Ordering::Acquire) {
            return Ok(Put::Closed);
        }
        self.pipe.put_parcel(id, parcel)
    }

    async fn room(&self) {
        self.pipe.room().await;
    }

    fn pending(&self) -> &Arc<Pending> {
        &self.pending
    }

    fn is_closed(&self) -> bool {
        self.retired.load(Ordering::Acquire) || self.pipe.is_closed()
    }

    async fn finish(&self, endpoint: &Endpoint) {
        if let Err(error) = self.pipe.finish(endpoint.limits.goodbye_wait_max).await {
            tracing::warn!(peer = %self.peer, error = %error.report(), "the last messages for a peer are lost");
        }
    }
}
