//! A core's thread: accepts, takes requests from its inbox, and once a second looks at every limit of time.

use std::{net::SocketAddr, rc::Rc, time::Duration};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

use super::{
    Core, Server,
    application::Wake,
    connection::{Connection, Phase},
    drive,
    stream::Stream,
};
use crate::{
    mesh::Request,
    settings::Protocol,
    stats::{CloseReason, Counters},
    websocket::{
        close::CloseCode,
        frame::{self, Opcode},
    },
};

/// Requests taken from the inbox in one turn, whose writes go out together.
const BATCH_MAX: usize = 256;

/// The pause after a failure to accept, such as for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Seconds a closing connection has for its last words.
const CLOSING_MAX: u32 = 5;

/// Connections a core tells to reconnect in one step of [`STOP_STEP`].
const STOP_BATCH: usize = 200;
const STOP_STEP: Duration = Duration::from_millis(100);

/// One listener of one core.
pub(crate) struct Listening {
    pub(crate) listener: TcpListener,
    pub(crate) server: Rc<Server>,
    pub(crate) tls: Option<TlsAcceptor>,
}

/// Runs until `stop` says so and every connection has ended or `grace` is over.
pub(crate) async fn run(
    core: Rc<Core>,
    servers: Vec<Listening>,
    inbox: mpsc::Receiver<Request>,
    mut stop: watch::Receiver<bool>,
    grace: Duration,
) {
    let applications: Vec<Rc<Server>> =
        servers.iter().map(|listening| Rc::clone(&listening.server)).collect();
    let mut acceptors = JoinSet::new();
    for listening in servers {
        acceptors.spawn_local(accept(Rc::clone(&core), listening));
    }
    let mut service = JoinSet::new();
    service.spawn_local(tokio::task::coop::unconstrained(serve(Rc::clone(&core), inbox)));
    service.spawn_local(tick(Rc::clone(&core), applications));
    // A sender that is gone means the same as a stop.
    let _gone = stop.wait_for(|stops| *stops).await;
    acceptors.shutdown().await;
    let _over = tokio::time::timeout(grace, dismiss(&core)).await;
    for connection in core.all() {
        core.abort(&connection, CloseReason::Shutdown);
        core.remove(&connection);
    }
}

/// Tells every connection to connect again elsewhere, at a steady rate, and waits until all are gone.
async fn dismiss(core: &Core) {
    for batch in core.all().chunks(STOP_BATCH) {
        for connection in batch {
            core.close(connection, CloseReason::Shutdown, CloseCode::RESTART, "the gateway restarts");
        }
        core.flush();
        tokio::time::sleep(STOP_STEP).await;
    }
    while !core.is_empty() {
        tokio::time::sleep(STOP_STEP / 10).await;
    }
}

async fn accept(core: Rc<Core>, listening: Listening) {
    let mut tasks = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listening.listener.accept() => match accepted {
                Ok((stream, peer)) => admit(&core, &listening, stream, peer, &mut tasks),
                Err(error) => {
                    Counters::add(&core.counters.accept_errors, 1);
                    tracing::warn!(%error, "cannot accept a connection; trying again");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_ended) = tasks.join_next() => {}
        }
    }
}

fn admit(
    core: &Rc<Core>,
    listening: &Listening,
    stream: TcpStream,
    peer: SocketAddr,
    handshakes: &mut JoinSet<()>,
) {
    if listening.server.connections.get() + handshakes.len() >= listening.server.connections_max {
        core.counters.closed(CloseReason::TooMany);
        return;
    }
    // Without it a small message waits for the acknowledgement of the one before. A socket that is gone already is
    // found out by its first read.
    let _gone = stream.set_nodelay(true);
    let (core, server) = (Rc::clone(core), Rc::clone(&listening.server));
    let Some(tls) = listening.tls.clone() else {
        start(&core, server, Stream::Tcp(stream), peer);
        return;
    };
    handshakes.spawn_local(async move {
        let time = server.settings.limits.handshake_time;
        match tokio::time::timeout(time, tls.accept(stream)).await {
            Ok(Ok(stream)) => start(&core, server, Stream::Tls(Box::new(stream)), peer),
            Ok(Err(_)) | Err(_) => core.counters.closed(CloseReason::Handshake),
        }
    });
}

/// Gives a connection its number and its task. The task is owned by the core's thread and ends with it.
fn start(core: &Rc<Core>, server: Rc<Server>, stream: Stream, peer: SocketAddr) {
    let connection = Rc::new(Connection::new(core.next_id(), peer, server, stream, core.now()));
    core.insert(Rc::clone(&connection));
    drop(tokio::task::spawn_local(drive::drive(Rc::clone(core), connection)));
}

async fn serve(core: Rc<Core>, mut inbox: mpsc::Receiver<Request>) {
    let mut requests = Vec::with_capacity(BATCH_MAX);
    while inbox.recv_many(&mut requests, BATCH_MAX).await > 0 {
        for request in requests.drain(..) {
            answer(&core, request);
        }
        core.flush();
        // Others have their turn between two batches: under load the inbox is never empty.
        tokio::task::yield_now().await;
    }
}

fn answer(core: &Core, request: Request) {
    // An answer that nobody waits for any more is no failure.
    match request {
        Request::Send { id, payload, answer } => {
            let result = core.send_anywhere(id, payload);
            drop(answer.map(|answer| answer.send(result)));
        }
        Request::Publish { channel, payload, answer } => {
            let published = core.publish(&channel, payload);
            if let Some(answer) = answer {
                let _unheard = answer.send(published);
            }
        }
        Request::Call { id, call, answer } => drop(answer.send(core.call(id, call))),
        Request::IsLive { id, answer } => drop(answer.send(core.find(id).is_some())),
    }
}

async fn tick(core: Rc<Core>, servers: Vec<Rc<Server>>) {
    let mut seconds = tokio::time::interval(Duration::from_secs(1));
    seconds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        seconds.tick().await;
        for server in &servers {
            server.application.on_tick(&core);
        }
        let now = core.now();
        for connection in core.all() {
            look(&core, &connection, now);
        }
        core.flush();
    }
}

/// Whether more than `limit` has passed since the second `since`. A limit below a second counts as one.
fn is_over(now: u32, since: u32, limit: Duration) -> bool {
    u64::from(now.saturating_sub(since)) > limit.as_secs().max(1)
}

fn look(core: &Core, connection: &Rc<Connection>, now: u32) {
    let limits = &connection.server.settings.limits;
    let heard = connection.heard.get();
    match connection.phase.get() {
        // A byte now and then does not prolong a handshake: `heard` is of no use here.
        Phase::Opening if is_over(now, connection.started, limits.handshake_time) => {
            core.abort(connection, CloseReason::Handshake);
        }
        Phase::Closing if now.saturating_sub(heard) > CLOSING_MAX => {
            core.abort(connection, CloseReason::Lost)
        }
        Phase::Open => {
            let stalled = connection.stalled.get();
            if stalled != u32::MAX && is_over(now, stalled, limits.write_time) {
                core.abort(connection, CloseReason::SlowReader);
                return;
            }
            let deadline = connection.held.borrow().as_ref().map(|held| held.deadline);
            if deadline.is_some_and(|deadline| now >= deadline) {
                core.release(connection, Wake::TimedOut);
            }
            if connection.holds_enough() {
                // It is not read now, so that nothing is heard says nothing.
                connection.heard.set(now);
            } else if is_over(now, heard, limits.read_time) {
                core.close(connection, CloseReason::Idle, CloseCode::SILENT, "nothing was heard");
            } else if is_over(now, heard, limits.read_time / 2)
                && connection.server.settings.protocol == Protocol::WebSocket
                && !connection.is_pinged.replace(true)
            {
                core.push_control(connection, frame::encode(Opcode::Ping, b""));
            }
        }
        Phase::Opening | Phase::Closing | Phase::Aborted => {}
    }
}

/// Every core's listener of one address, which the system spreads connections over.
///
/// # Errors
/// The system's, such as when the port is taken.
pub(crate) fn listeners(
    address: SocketAddr,
    cores: usize,
) -> std::io::Result<(SocketAddr, Vec<std::net::TcpListener>)> {
    let mut bound = address;
    let mut listeners = Vec::with_capacity(cores);
    for _ in 0..cores {
        let domain = socket2::Domain::for_address(bound);
        let socket = socket2::Socket::new(domain, socket2::Type::STREAM, Some(socket2::Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        socket.set_reuse_address(true)?;
        if listeners.is_empty() {
            // Without this first bind, a second gateway on the same port would silently share its connections.
            check_free(bound)?;
        }
        socket.set_reuse_port(true)?;
        socket.bind(&bound.into())?;
        socket.listen(4_096)?;
        let listener = std::net::TcpListener::from(socket);
        bound = listener.local_addr()?;
        listeners.push(listener);
    }
    Ok((bound, listeners))
}

fn check_free(address: SocketAddr) -> std::io::Result<()> {
    if address.port() == 0 {
        return Ok(());
    }
    let domain = socket2::Domain::for_address(address);
    let probe = socket2::Socket::new(domain, socket2::Type::STREAM, Some(socket2::Protocol::TCP))?;
    probe.set_reuse_address(true)?;
    probe.bind(&address.into())
}

/// The first number of a core's connections: it grows with the time, eight to the millisecond, so that a node that
/// restarts within a day or within a hundred years gives no number twice.
pub(crate) fn first_sequence() -> u64 {
    const YEAR_2025: Duration = Duration::from_secs(1_735_689_600);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or(YEAR_2025);
    let milliseconds = now.saturating_sub(YEAR_2025).as_millis();
    u64::try_from(milliseconds).unwrap_or(0).saturating_mul(8).max(1)
}
