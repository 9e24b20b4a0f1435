//! The accepting side: who may call, and reading what callers send.

use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::{Buf as _, BytesMut};
use estafette_core::{Error, ErrorKind, Result};
use tokio::{
    net::{UnixListener, UnixStream},
    sync::watch,
};

use crate::{
    Address,
    desk::{Answers, Desk},
    endpoint::Endpoint,
    error::{invalid, system},
    frame::{Frame, Hello, PROTOCOL, Refusal, Welcome, undecodable},
    patience::Patience,
    pipe::Pipe,
    socket::{self, Reading, Writing},
    wire::{Decoder, Wire},
};

/// The longest greeting, in bytes: before it a caller has not said who it is.
const HELLO_BYTES_MAX: usize = 4096;

/// How long accepting pauses when the process has no descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The connections of those who call.
#[derive(Default)]
pub(crate) struct Callers {
    state: Mutex<State>,
    /// How many connections there are, greeted or not.
    count: watch::Sender<usize>,
}

#[derive(Default)]
struct State {
    id_last: u64,
    pipes: HashMap<u64, Arc<Pipe>>,
    leaving: bool,
}

impl Callers {
    /// Registers a greeted caller; `None` when the participant is leaving and takes no more.
    fn add(&self, pipe: &Arc<Pipe>) -> Option<u64> {
        let mut state = self.lock();
        if state.leaving {
            return None;
        }
        state.id_last += 1;
        let id = state.id_last;
        state.pipes.insert(id, Arc::clone(pipe));
        Some(id)
    }

    /// Says goodbye to everybody and waits until they have sent what they were sending, or the time is up.
    async fn leave(&self, wait_max: Duration) {
        let pipes: Vec<_> = {
            let mut state = self.lock();
            state.leaving = true;
            state.pipes.values().cloned().collect()
        };
        for pipe in pipes {
            if let Err(error) = pipe.put_frame(&Frame::Goodbye) {
                tracing::debug!(error = %error.report(), "a caller did not get a goodbye");
            }
        }
        let mut count = self.count.subscribe();
        let emptied = count.wait_for(|count| *count == 0);
        if tokio::time::timeout(wait_max, emptied).await.is_err() {
            tracing::warn!(?wait_max, "callers did not finish in time; they are disconnected");
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts a connection for as long as it lives.
struct Counted(Arc<Endpoint>);

impl Counted {
    /// `None` when there are too many.
    fn new(endpoint: &Arc<Endpoint>) -> Option<Self> {
        let max = endpoint.limits.connections_max;
        let added = endpoint.callers.count.send_if_modified(|count| {
            *count += usize::from(*count < max);
            *count <= max
        });
        added.then(|| Self(Arc::clone(endpoint)))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.callers.count.send_modify(|count| *count -= 1);
    }
}

/// Makes `endpoint` reachable: callers can connect from now on, and are greeted once it is ready.
///
/// # Errors
///
/// When the socket cannot be made.
pub(crate) fn listen(endpoint: &Arc<Endpoint>) -> Result<()> {
    endpoint.directory.remove_sockets(&endpoint.address)?;
    let path = endpoint.directory.socket(&endpoint.address, Wire::Frames);
    let listener = UnixListener::bind(&path).map_err(|error| system(&path.display().to_string(), error))?;
    let accepting = accept_all(Arc::clone(endpoint), listener);
    let mut stopping = endpoint.stopping.subscribe();
    let endpoint_of_task = Arc::clone(endpoint);
    endpoint.spawn(async move {
        tokio::select! {
            () = accepting => {}
            _ = stopping.wait_for(|stopping| *stopping) => {}
        }
        // Dropped by now, the listener refuses who comes; without the path they wait for the successor's.
        if let Err(error) = endpoint_of_task.directory.remove_sockets(&endpoint_of_task.address) {
            tracing::warn!(error = %error.report(), "the socket stays behind");
        }
    });
    Ok(())
}

/// Stops accepting, lets callers finish, and handles all they have sent.
pub(crate) async fn leave(endpoint: &Endpoint) {
    endpoint.stopping.send_replace(true);
    endpoint.callers.leave(endpoint.limits.goodbye_wait_max).await;
}

async fn accept_all(endpoint: Arc<Endpoint>, listener: UnixListener) {
    // The sender lives in the endpoint, so waiting for it cannot fail.
    drop(endpoint.ready.subscribe().wait_for(|ready| *ready).await);
    loop {
        match listener.accept().await {
            Ok((socket, _unnamed)) => accept(&endpoint, socket),
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn accept(endpoint: &Arc<Endpoint>, socket: UnixStream) {
    if let Err(error) = check_user(&socket) {
        return drop_peer(endpoint, None, &error);
    }
    let Some(counted) = Counted::new(endpoint) else {
        return drop_peer(endpoint, None, &Error::new(ErrorKind::Full, "too many connections"));
    };
    let (reading, writing) = match socket::split(socket) {
        Ok(halves) => halves,
        Err(error) => return drop_peer(endpoint, None, &system("watching a socket", error)),
    };
    let endpoint_of_task = Arc::clone(endpoint);
    endpoint.spawn(async move {
        serve(&endpoint_of_task, reading, writing).await;
        drop(counted);
    });
}

/// Lets in processes of this user, and root, who can do anything anyway.
fn check_user(socket: &UnixStream) -> Result<()> {
    let peer = socket.peer_cred().map_err(|error| system("asking who calls", error))?;
    if peer.uid() == rustix::process::geteuid().as_raw() || peer.uid() == 0 {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Denied, format!("user {} is not the one of this group", peer.uid())))
}

fn drop_peer(endpoint: &Endpoint, peer: Option<&Address>, error: &Error) {
    endpoint.counters.peers_dropped.count();
    let (who, peer) = (&endpoint.address, peer.map(ToString::to_string));
    tracing::warn!(%who, peer, error = %error.report(), "dropped a peer that broke the protocol");
}

/// One caller, from greeting to end.
async fn serve(endpoint: &Arc<Endpoint>, mut reading: Reading, writing: Writing) {
    let mut buffer = BytesMut::new();
    let greeting = read_hello(endpoint, &mut reading, &mut buffer);
    let greeted = match tokio::time::timeout(endpoint.limits.hello_wait_max, greeting).await {
        Ok(greeted) => greeted,
        Err(_elapsed) => Err(Error::new(ErrorKind::TimedOut, "it did not say who it is")),
    };
    let (wire, hello) = match greeted {
        Ok(Some(greeted)) => greeted,
        // Connected and gone, as whoever only looks whether somebody listens.
        Ok(None) => return,
        Err(error) => return drop_peer(endpoint, None, &error),
    };
    let pipe = Arc::new(Pipe::new(wire, writing, endpoint.limits.queue_bytes_max));
    let writer = Arc::clone(&pipe);
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(async move { writer.run().await });
    match check_hello(endpoint, &hello) {
        Ok(from) => {
            if let Some(id) = endpoint.callers.add(&pipe) {
                let reader = Reader { endpoint, wire, pipe: &pipe, from, reading, buffer };
                reader.run().await;
                endpoint.callers.lock().pipes.remove(&id);
            }
        }
        Err(error) => {
            answer(&pipe, &Frame::Refused(Refusal::from(&error)));
            drop_peer(endpoint, None, &error);
        }
    }
    if let Err(error) = pipe.finish(endpoint.limits.hello_wait_max).await {
        tracing::debug!(error = %error.report(), "a caller did not take its last replies");
    }
    tasks.join_all().await;
}

async fn read_hello(
    endpoint: &Endpoint,
    reading: &mut Reading,
    buffer: &mut BytesMut,
) -> Result<Option<(Wire, Hello)>> {
    loop {
        match reading.read(buffer).await {
            Ok(0) if buffer.is_empty() => return Ok(None),
            Ok(0) => return Err(undecodable("it ended within its first frame")),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
            Err(error) => return Err(Error::new(ErrorKind::Closed, error)),
        }
        let Some(first) = buffer.first() else { continue };
        let wire = Wire::of_first_byte(*first);
        let bytes_max = HELLO_BYTES_MAX.min(endpoint.limits.frame_bytes_max);
        match Decoder::new(wire, bytes_max).decode(buffer)? {
            None => {}
            Some(Frame::Hello(hello)) => return Ok(Some((wire, hello))),
            Some(_) => return Err(undecodable("it did not begin with a hello")),
        }
    }
}

fn check_hello(endpoint: &Endpoint, hello: &Hello) -> Result<Address> {
    if hello.protocol != PROTOCOL {
        let sentence = format!("protocol {} is not spoken here; {PROTOCOL} is", hello.protocol);
        return Err(Error::new(ErrorKind::Unsupported, sentence));
    }
    if hello.to != endpoint.address.to_string() {
        return Err(invalid(format!("this is {}, not {}", endpoint.address, hello.to)));
    }
    hello.from.parse()
}

/// Queues a frame for a caller; one without a form in the caller's lines is replaced by an error.
fn answer(pipe: &Pipe, frame: &Frame) {
    if let Err(error) = pipe.put_frame(frame) {
        tracing::warn!(error = %error.report(), "an answer has no form the caller reads");
        if let Frame::Reply { id, .. } = frame {
            let failure = Frame::Failure { id: *id, refusal: Refusal::from(&error) };
            // An error always has a form.
            drop(pipe.put_frame(&failure));
        }
    }
}

impl Answers for Pipe {
    fn answer(&self, frame: Frame) {
        answer(self, &frame);
    }
}

/// Reads what a greeted caller sends.
struct Reader<'a> {
    endpoint: &'a Arc<Endpoint>,
    wire: Wire,
    pipe: &'a Arc<Pipe>,
    from: Address,
    reading: Reading,
    buffer: BytesMut,
}

impl Reader<'_> {
    async fn run(mut self) {
        let (from, incarnation) = (self.endpoint.address.to_string(), self.endpoint.incarnation);
        answer(self.pipe, &Frame::Welcome(Welcome { from, incarnation }));
        let answers: Arc<dyn Answers> = Arc::<Pipe>::clone(self.pipe);
        let mut desk = Desk::new(Arc::clone(self.endpoint), self.from.clone(), answers);
        let mut decoder = Decoder::new(self.wire, self.endpoint.limits.frame_bytes_max);
        let patience = Patience::new(self.endpoint.limits.looking_max);
        let ended = loop {
            if let Err(error) = self.take_all(&mut decoder, &mut desk).await {
                break Err(error);
            }
            match self.reading.read_soon(&mut self.buffer, &patience).await {
                Ok(0) if self.buffer.is_empty() => break Ok(()),
                Ok(0) => break Err(undecodable("it ended within a frame")),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => break Ok(()),
                Err(error) => break Err(Error::new(ErrorKind::Closed, error)),
            }
        };
        if let Err(error) = ended {
            drop_peer(self.endpoint, Some(&self.from), &error);
        }
        // What was sent before the end was accepted, so it is handled.
        desk.all_ended().await;
    }

    /// Handles every whole frame in the buffer; the answers leave in one write at the end.
    async fn take_all(&mut self, decoder: &mut Decoder, desk: &mut Desk) -> Result<()> {
        self.pipe.begin_turn();
        let taken = self.take_some(decoder, desk).await;
        self.pipe.end_turn();
        taken
    }

    async fn take_some(&mut self, decoder: &mut Decoder, desk: &mut Desk) -> Result<()> {
        loop {
            let is_request = match decoder.view(&self.buffer) {
                Some((message, length)) => {
                    desk.take(message);
                    let is_request = message.id.is_some();
                    self.buffer.advance(length);
                    is_request
                }
                None => match decoder.decode(&mut self.buffer)? {
                    None => return Ok(()),
                    Some(Frame::Send { action, body }) => {
                        desk.take(body.view(None, &action));
                        false
                    }
                    Some(Frame::Request { id, action, body }) => {
                        desk.take(body.view(Some(id), &action));
                        true
                    }
                    Some(_) => return Err(undecodable("a caller sends messages and requests only")),
                },
            };
            let max = self.endpoint.limits.queue_bytes_max;
            if desk.is_busy() || (is_request && self.pipe.waiting_bytes() > max) {
                self.pipe.end_turn();
                self.pause(desk).await?;
                self.pipe.begin_turn();
            }
            tokio::task::consume_budget().await;
        }
    }

    /// Reads nothing until enough listeners have ended and enough answers were taken.
    async fn pause(&self, desk: &mut Desk) -> Result<()> {
        while desk.is_busy() {
            desk.one_ended().await;
        }
        let taking = tokio::time::timeout(self.endpoint.limits.send_wait_max, self.pipe.room());
        if taking.await.is_err() {
            return Err(Error::new(ErrorKind::TimedOut, "it does not read the replies to its requests"));
        }
        Ok(())
    }
}
