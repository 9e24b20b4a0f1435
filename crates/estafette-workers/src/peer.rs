//! One peer as a participant sees it: connected on first use, and again after it restarted.

use std::{
    io,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use bytes::BytesMut;
use estafette_core::{Error, ErrorKind, Result};
use tokio::{net::UnixStream, time::Instant};

use crate::{
    Address,
    endpoint::Endpoint,
    error::{describe, kind_from_name, system},
    frame::{Frame, Hello, PROTOCOL, undecodable},
    link::{Link, SocketLink},
    pipe::{Pipe, Put},
    socket::{self, Reading},
    wire::{Decoder, Parcel, Wire},
};

/// How often a peer that does not answer is tried again, unless the supervisor says that something changed.
const RETRY_DELAY: Duration = Duration::from_millis(20);

/// A peer, connected or not.
pub(crate) struct Peer {
    address: Address,
    link: RwLock<Option<Arc<dyn Link>>>,
    /// Held while connecting, so that a peer is connected once.
    connecting: tokio::sync::Mutex<()>,
}

impl Peer {
    pub(crate) fn new(address: Address) -> Self {
        Self { address, link: RwLock::default(), connecting: tokio::sync::Mutex::default() }
    }

    pub(crate) fn with_link(address: Address, link: Arc<dyn Link>) -> Self {
        Self { address, link: RwLock::new(Some(link)), connecting: tokio::sync::Mutex::default() }
    }

    pub(crate) fn address(&self) -> &Address {
        &self.address
    }

    /// The link there was last, open or not.
    pub(crate) fn link(&self) -> Option<Arc<dyn Link>> {
        self.link.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Gives a message to the link there was last; [`Put::Closed`] when there is none.
    pub(crate) fn put(&self, parcel: &Parcel) -> Result<Put> {
        match &*self.link.read().unwrap_or_else(PoisonError::into_inner) {
            Some(link) => link.put(None, parcel),
            None => Ok(Put::Closed),
        }
    }

    /// An open link; waits for a peer that is being restarted.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`] when the group has no such member; [`ErrorKind::Unavailable`] when it cannot be reached until
    /// `deadline`.
    pub(crate) async fn connect(&self, endpoint: &Arc<Endpoint>, deadline: Instant) -> Result<Arc<dyn Link>> {
        let waiting = tokio::time::timeout_at(deadline, self.connecting.lock()).await;
        let Ok(_connecting) = waiting else { return Err(unreachable(&self.address, None)) };
        let mut members = endpoint.members.subscribe();
        loop {
            if let Some(link) = self.link().filter(|link| !link.is_closed()) {
                return Ok(link);
            }
            check_member(endpoint, &self.address)?;
            let error = match tokio::time::timeout_at(deadline, self.dial(endpoint)).await {
                Ok(Ok(link)) => {
                    let link: Arc<dyn Link> = link;
                    *self.link.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&link));
                    return Ok(link);
                }
                Ok(Err(error)) if !matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Closed) => {
                    return Err(error);
                }
                Ok(Err(error)) => Some(error),
                Err(_elapsed) => None,
            };
            if Instant::now() + RETRY_DELAY >= deadline {
                return Err(unreachable(&self.address, error));
            }
            // Whether the members changed or the time has come: it is tried again.
            drop(tokio::time::timeout(RETRY_DELAY, members.changed()).await);
        }
    }

    /// Connects once: to the socket for frames, or to the one for lines when the peer has only that.
    async fn dial(&self, endpoint: &Arc<Endpoint>) -> Result<Arc<SocketLink>> {
        let mut wire = Wire::Frames;
        let mut connected = UnixStream::connect(endpoint.directory.socket(&self.address, wire)).await;
        if connected.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
            wire = Wire::Lines;
            connected = UnixStream::connect(endpoint.directory.socket(&self.address, wire)).await;
        }
        let socket = match connected {
            Ok(socket) => socket,
            Err(error) if is_away(&error) => return Err(Error::new(ErrorKind::Unavailable, error)),
            Err(error) => return Err(system("connecting to a socket", error)),
        };
        let (mut reading, writing) =
            socket::split(socket).map_err(|error| system("watching a socket", error))?;
        let limits = &endpoint.limits;
        let pipe = Arc::new(Pipe::new(wire, writing, limits.queue_bytes_max));
        let hello = Hello {
            protocol: PROTOCOL,
            from: endpoint.address.to_string(),
            to: self.address.to_string(),
            incarnation: endpoint.incarnation,
        };
        pipe.put_frame(&Frame::Hello(hello))?;
        let mut running = tokio::task::JoinSet::new();
        let writer = Arc::clone(&pipe);
        running.spawn(async move { writer.run().await });
        let mut decoder = Decoder::new(wire, limits.frame_bytes_max);
        let mut buffer = BytesMut::new();
        self.await_welcome(&mut reading, &mut decoder, &mut buffer).await?;
        let link = Arc::new(SocketLink::new(self.address.clone(), pipe, limits));
        let reader = Arc::clone(&link).read(Arc::clone(endpoint), reading, buffer, decoder);
        endpoint.spawn(async move {
            reader.await;
            running.join_all().await;
        });
        Ok(link)
    }

    async fn await_welcome(
        &self,
        reading: &mut Reading,
        decoder: &mut Decoder,
        buffer: &mut BytesMut,
    ) -> Result<()> {
        loop {
            match decoder.decode(buffer)? {
                None => {}
                Some(Frame::Welcome(welcome)) if welcome.from == self.address.to_string() => return Ok(()),
                Some(Frame::Refused(refusal)) => {
                    return Err(Error::new(kind_from_name(&refusal.kind), refusal.message));
                }
                Some(_) => {
                    let who = describe(&self.address);
                    return Err(undecodable(format!("{who} did not welcome the connection as itself")));
                }
            }
            match reading.read(buffer).await {
                Ok(0) => return Err(Error::new(ErrorKind::Closed, "closed before the welcome")),
                Ok(_) => {}
                Err(error) => return Err(Error::new(ErrorKind::Closed, error)),
            }
        }
    }
}

/// Whether nobody listens, or too many wait there: both may change by themselves.
fn is_away(error: &io::Error) -> bool {
    use io::ErrorKind as Io;
    matches!(
        error.kind(),
        Io::NotFound | Io::ConnectionRefused | Io::WouldBlock | Io::ConnectionReset | Io::BrokenPipe
    )
}

/// Refuses addresses the group does not have.
fn check_member(endpoint: &Endpoint, address: &Address) -> Result<()> {
    let members = endpoint.members.borrow();
    if members.presence(address).is_some() {
        return Ok(());
    }
    let sentence = match address {
        Address::Worker(id) => {
            let count = members.count();
            format!("no such worker: {id}; the group {} has {count}, numbered from 0", endpoint.group)
        }
        _ => format!("no such process: {address} in the group {}", endpoint.group),
    };
    Err(Error::new(ErrorKind::NotFound, sentence))
}

fn unreachable(address: &Address, last: Option<Error>) -> Error {
    let reason = last.map(|error| format!(": {}", error.report())).unwrap_or_default();
    let sentence = format!("{} could not be reached within the limit{reason}", describe(address));
    Error::new(ErrorKind::Unavailable, sentence)
}
