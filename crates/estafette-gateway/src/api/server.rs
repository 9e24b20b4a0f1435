//! The listening addresses and their connections.

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    sync::{
        Arc, PoisonError, RwLock, RwLockReadGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http_body_util::Full;
use hyper::{
    body::Incoming,
    server::conn::http1,
    service::{HttpService, service_fn},
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    task::JoinSet,
};

use super::{
    access::{Access, Roles, User},
    metrics::ApiStats,
    nodes::Nodes,
    routes::{self, Ends, Face, Upgrade},
    session::Session,
    settings::{ApiSettings, is_public, unprotected},
};
use crate::mesh::Hub;

/// For the headers of a request, the wait for it on an idle connection included.
const HEADERS_TIME_MAX: Duration = Duration::from_secs(30);

/// Headers of a request.
const HEADERS_MAX: usize = 64;

/// Bytes that hyper buffers of a connection.
const BUFFER_MAX: usize = 16 << 10;

/// Pause after accepting failed, such as for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long a backend's machine may be silent at the TCP level, data waiting, before it counts as gone.
const PEER_GONE_AFTER: Duration = Duration::from_secs(300);

/// For connections to end when the API stops.
const STOP_MAX: Duration = Duration::from_secs(3);

/// What all connections share.
pub(crate) struct Shared {
    pub(crate) hub: Hub,
    pub(crate) nodes: Nodes,
    pub(crate) advertise: Option<String>,
    pub(crate) management: Option<SocketAddr>,
    pub(crate) request_max: usize,
    access: RwLock<Access>,
    ready: AtomicBool,
    sessions: AtomicU64,
    requests: AtomicU64,
}

impl Shared {
    pub(crate) fn access(&self) -> RwLockReadGuard<'_, Access> {
        self.access.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }

    pub(crate) fn count_request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn stats(&self) -> ApiStats {
        ApiStats {
            sessions: self.sessions.load(Ordering::Relaxed),
            requests: self.requests.load(Ordering::Relaxed),
        }
    }
}

/// A session that is counted while it lives.
pub(crate) struct Counted(Arc<Shared>);

impl Counted {
    fn new(shared: &Arc<Shared>) -> Self {
        shared.sessions.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(shared))
    }

    pub(crate) fn request(&self) {
        self.0.count_request();
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.sessions.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What can be changed while the API runs.
#[derive(Clone)]
pub struct ApiHandle {
    shared: Arc<Shared>,
}

impl ApiHandle {
    /// The list that `/v1/nodes` shows.
    #[must_use]
    pub fn nodes(&self) -> &Nodes {
        &self.shared.nodes
    }

    /// Whether `/readyz` says that this node takes connections.
    pub fn set_ready(&self, ready: bool) {
        self.shared.ready.store(ready, Ordering::Relaxed);
    }

    /// Replaces the users, for requests and sessions that begin from now on.
    ///
    /// # Errors
    /// [`PermissionDenied`](io::ErrorKind::PermissionDenied) if none would be left at a public address; nothing is changed then.
    pub fn set_users(&self, users: Vec<User>) -> io::Result<()> {
        if let Some(address) =
            self.shared.management.filter(|address| is_public(*address) && users.is_empty())
        {
            return Err(unprotected(address));
        }
        *self.shared.access.write().unwrap_or_else(PoisonError::into_inner) = Access::new(users);
        Ok(())
    }
}

/// The management API, listening.
pub struct Api {
    shared: Arc<Shared>,
    listeners: Vec<(Face, TcpListener)>,
    connections_max: usize,
}

impl Api {
    /// Listens on the addresses of `settings`.
    ///
    /// # Errors
    /// [`PermissionDenied`](io::ErrorKind::PermissionDenied) for a public management address without a user; whatever
    /// listening fails with.
    pub async fn bind(settings: ApiSettings, hub: Hub) -> io::Result<Self> {
        settings.check()?;
        let mut listeners = Vec::new();
        for (face, address) in
            [(Face::Management, settings.management), (Face::Discovery, settings.discovery)]
        {
            if let Some(address) = address {
                listeners.push((face, TcpListener::bind(address).await?));
            }
        }
        let management = listeners.iter().find(|(face, _)| *face == Face::Management);
        let management = management.map(|(_, listener)| listener.local_addr()).transpose()?;
        let shared = Shared {
            hub,
            nodes: Nodes::default(),
            advertise: settings.advertise,
            management,
            request_max: settings.request_max,
            access: RwLock::new(Access::new(settings.users)),
            ready: AtomicBool::new(true),
            sessions: AtomicU64::new(0),
            requests: AtomicU64::new(0),
        };
        Ok(Self { shared: Arc::new(shared), listeners, connections_max: settings.connections_max })
    }

    /// Where backends connect.
    #[must_use]
    pub fn management_address(&self) -> Option<SocketAddr> {
        self.shared.management
    }

    /// Where backends ask for the nodes.
    #[must_use]
    pub fn discovery_address(&self) -> Option<SocketAddr> {
        let listener = self.listeners.iter().find(|(face, _)| *face == Face::Discovery);
        listener.and_then(|(_, listener)| listener.local_addr().ok())
    }

    /// What can be changed while it runs.
    #[must_use]
    pub fn handle(&self) -> ApiHandle {
        ApiHandle { shared: Arc::clone(&self.shared) }
    }

    /// Serves until `stop` is done; then tells the backends to connect again, and returns within three seconds.
    pub async fn serve(self, stop: impl Future<Output = ()>) {
        let (stopping, stopped) = watch::channel(false);
        let mut faces = JoinSet::new();
        for (face, listener) in self.listeners {
            let shared = Arc::clone(&self.shared);
            faces.spawn(accept(shared, face, listener, self.connections_max, stopped.clone()));
        }
        stop.await;
        self.shared.ready.store(false, Ordering::Relaxed);
        stopping.send_replace(true);
        while faces.join_next().await.is_some() {}
    }
}

async fn accept(
    shared: Arc<Shared>,
    face: Face,
    listener: TcpListener,
    connections_max: usize,
    mut stop: watch::Receiver<bool>,
) {
    let places = Arc::new(Semaphore::new(connections_max));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = accept_one(&listener, &places) => accepted,
            () = stopped(&mut stop) => break,
            Some(_) = connections.join_next() => continue,
        };
        match accepted {
            Ok((stream, peer, place)) => {
                let (shared, stop) = (Arc::clone(&shared), stop.clone());
                connections.spawn(async move {
                    if let Err(error) = connection(shared, face, (stream, peer), stop).await {
                        tracing::debug!(%peer, %error, "a backend's connection failed");
                    }
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a backend's connection is not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    let all = async { while connections.join_next().await.is_some() {} };
    drop(tokio::time::timeout(STOP_MAX, all).await);
}

/// Ends when the API stops.
pub(crate) async fn stopped(stop: &mut watch::Receiver<bool>) {
    // Without its sender there is nobody left to serve for either.
    drop(stop.wait_for(|stop| *stop).await);
}

type Place = tokio::sync::OwnedSemaphorePermit;

/// Accepts when a place is free: what is too much waits in the kernel's short queue.
async fn accept_one(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> io::Result<(TcpStream, SocketAddr, Place)> {
    let place = Arc::clone(places).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, peer) = listener.accept().await?;
    Ok((stream, peer, place))
}

/// One connection: HTTP requests, and the WebSocket it may become.
async fn connection(
    shared: Arc<Shared>,
    face: Face,
    (stream, peer): (TcpStream, SocketAddr),
    mut stop: watch::Receiver<bool>,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = socket2::SockRef::from(&stream);
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(PEER_GONE_AFTER))?;
    socket.set_keepalive(true)?;
    let ends = Ends { face, peer, local: stream.local_addr()? };
    let upgrade = Upgrade::default();
    let service = service_fn(async |request| {
        Ok::<_, Infallible>(routes::answer(&shared, ends, request, &upgrade).await)
    });
    serve_http(stream, service, &mut stop).await?;
    let upgraded = upgrade.lock().unwrap_or_else(PoisonError::into_inner).take();
    match upgraded {
        Some(upgraded) => websocket(shared, upgraded, stop).await,
        None => Ok(()),
    }
}

/// Until the connection ends, becomes a WebSocket, or has answered what it was asked when `stop` comes.
async fn serve_http<S>(stream: TcpStream, service: S, stop: &mut watch::Receiver<bool>) -> io::Result<()>
where
    S: HttpService<Incoming, ResBody = Full<Bytes>, Error = Infallible>,
{
    let http = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS_TIME_MAX)
        .max_headers(HEADERS_MAX)
        .max_buf_size(BUFFER_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut http = std::pin::pin!(http);
    tokio::select! {
        result = &mut http => result.map_err(io::Error::other),
        () = stopped(stop) => {
            http.as_mut().graceful_shutdown();
            http.await.map_err(io::Error::other)
        }
    }
}

async fn websocket(
    shared: Arc<Shared>,
    (upgrade, roles): (hyper::upgrade::OnUpgrade, Roles),
    stop: watch::Receiver<bool>,
) -> io::Result<()> {
    let upgraded = upgrade.await.map_err(io::Error::other)?;
    let parts = upgraded.downcast::<TokioIo<TcpStream>>();
    let parts = parts.map_err(|_other| io::Error::other("not the connection that was accepted"))?;
    let input = BytesMut::from(parts.read_buf);
    let counted = Counted::new(&shared);
    let session = Session::new(shared.hub.clone(), roles, counted, input, shared.request_max);
    session.run(parts.io.into_inner(), stop).await
}
