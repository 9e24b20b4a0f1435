//! One connection: requests out as soon as they are there, answers back in the order of the requests.
//!
//! A server answers each request of a connection in turn, so that an answer belongs to the oldest request that still waits for
//! one; only NOOP comes unasked. Writing is tried at once by whoever has something to write, without a turn of another task.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::BytesMut;
use estafette_core::{Error, Result};
use tokio::{
    io::AsyncReadExt,
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{Notify, oneshot},
    time::Instant,
};

use crate::{
    config::{Endpoint, GearmanConfig},
    error,
    protocol::{self, OVERHEAD_BYTES_MAX, Packet, kind},
};

/// How much is read at once.
const READ_BYTES: usize = 64 << 10;

/// How long a server may take to read the rest when a connection is closed.
const LINGER: Duration = Duration::from_secs(1);

pub(crate) struct Link {
    shared: Arc<Shared>,
}

struct Shared {
    endpoint: Endpoint,
    state: Mutex<State>,
    /// There is something left to write, or nothing any more.
    more: Notify,
    /// The server says that there may be a job, or the connection ended.
    woken: Notify,
}

struct State {
    /// None when the connection is being closed.
    socket: Option<Arc<OwnedWriteHalf>>,
    outgoing: BytesMut,
    waiting: VecDeque<Waiting>,
    /// Why the connection ended.
    ended: Option<Error>,
}

/// What is done with the answers, in the order of the questions: on the reading task, so it must be quick.
type Done = Box<dyn FnOnce(Result<Vec<Packet>>) + Send>;

/// A question that waits for its answers.
struct Waiting {
    left: usize,
    packets: Vec<Packet>,
    done: Done,
}

impl Link {
    pub(crate) async fn open(endpoint: &Endpoint, config: &GearmanConfig) -> Result<Self> {
        let connecting = TcpStream::connect((endpoint.host.as_str(), endpoint.port));
        let stream = match tokio::time::timeout(config.connect_timeout, connecting).await {
            Ok(connected) => connected.map_err(|source| error::broken(endpoint, &source))?,
            Err(_elapsed) => return Err(error::silent(endpoint, config.connect_timeout)),
        };
        stream.set_nodelay(true).map_err(|source| error::broken(endpoint, &source))?;
        let (reading, socket) = stream.into_split();
        let shared = Arc::new(Shared {
            endpoint: endpoint.clone(),
            state: Mutex::new(State {
                socket: Some(Arc::new(socket)),
                outgoing: BytesMut::new(),
                waiting: VecDeque::new(),
                ended: None,
            }),
            more: Notify::new(),
            woken: Notify::new(),
        });
        // An envelope is larger than its body: base64, and what JSON escapes.
        let bytes_max =
            config.body_bytes_max.saturating_mul(6).saturating_add(OVERHEAD_BYTES_MAX + (1 << 20));
        tokio::spawn(drive(Arc::clone(&shared), reading, bytes_max));
        Ok(Self { shared })
    }

    pub(crate) fn is_open(&self) -> bool {
        self.shared.lock().ended.is_none()
    }

    /// Writes requests that are not answered.
    pub(crate) fn tell(&self, requests: &[u8]) -> Result<()> {
        let mut state = self.shared.lock();
        self.shared.push(&mut state, requests)
    }

    /// Writes requests, so many of which are answered, and says what to do with the answers. When this fails it is not done.
    pub(crate) fn begin(
        &self,
        requests: &[u8],
        answers: usize,
        done: impl FnOnce(Result<Vec<Packet>>) + Send + 'static,
    ) -> Result<()> {
        let mut state = self.shared.lock();
        self.shared.push(&mut state, requests)?;
        let packets = Vec::with_capacity(answers);
        state.waiting.push_back(Waiting { left: answers, packets, done: Box::new(done) });
        Ok(())
    }

    /// Writes requests and waits for so many answers, at most until `deadline`, after which the connection is given up.
    pub(crate) async fn call(
        &self,
        requests: &[u8],
        answers: usize,
        deadline: Instant,
    ) -> Result<Vec<Packet>> {
        let (done, answered) = oneshot::channel();
        // Nobody may wait any more.
        self.begin(requests, answers, |result| drop(done.send(result)))?;
        self.in_time(answered, deadline).await?
    }

    /// Waits for something the server is to do, at most until `deadline`, after which the connection is given up.
    pub(crate) async fn in_time<T>(&self, answered: oneshot::Receiver<T>, deadline: Instant) -> Result<T> {
        match tokio::time::timeout_at(deadline, answered).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_dropped)) => Err(error::hung_up(&self.shared.endpoint)),
            Err(_elapsed) => {
                let error = error::late(&self.shared.endpoint);
                self.shared.end(&error);
                Err(error)
            }
        }
    }

    /// Waits until the server has done everything it was told.
    pub(crate) async fn flush(&self, deadline: Instant) -> Result<()> {
        let mut request = Vec::new();
        protocol::put(&mut request, kind::ECHO_REQ, &[b"?"]);
        self.call(&request, 1, deadline).await.map(drop)
    }

    /// Waits until the server says that there may be a job, or the connection has ended.
    pub(crate) async fn woken(&self) {
        self.shared.woken.notified().await;
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.shared.lock().socket = None;
        self.shared.more.notify_one();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, state: &mut State, requests: &[u8]) -> Result<()> {
        if let Some(ended) = &state.ended {
            return Err(ended.clone());
        }
        let mut written = 0;
        if state.outgoing.is_empty()
            && let Some(socket) = &state.socket
        {
            // Anything but success is met again by the writing task.
            written = socket.try_write(requests).unwrap_or(0);
        }
        if let Some(rest) = requests.get(written..).filter(|rest| !rest.is_empty()) {
            state.outgoing.extend_from_slice(rest);
            self.more.notify_one();
        }
        Ok(())
    }

    fn end(&self, error: &Error) {
        let mut state = self.lock();
        if state.ended.is_none() {
            state.ended = Some(error.clone());
        }
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        for waiting in waiting {
            (waiting.done)(Err(error.clone()));
        }
        self.more.notify_one();
        self.woken.notify_waiters();
        self.woken.notify_one();
    }

    fn take(&self, packet: Packet) {
        if packet.kind == kind::NOOP {
            self.woken.notify_one();
            return;
        }
        let mut state = self.lock();
        let Some(first) = state.waiting.front_mut() else { return };
        first.packets.push(packet);
        first.left = first.left.saturating_sub(1);
        if first.left == 0
            && let Some(waiting) = state.waiting.pop_front()
        {
            drop(state);
            (waiting.done)(Ok(waiting.packets));
        }
    }
}

async fn read(shared: Arc<Shared>, mut socket: OwnedReadHalf, bytes_max: usize) {
    let mut buffer = BytesMut::with_capacity(READ_BYTES);
    loop {
        buffer.reserve(READ_BYTES / 4);
        let error = match socket.read_buf(&mut buffer).await {
            Ok(0) => Some(error::hung_up(&shared.endpoint)),
            Ok(_) => loop {
                match protocol::take(&mut buffer, bytes_max) {
                    Ok(Some(packet)) => shared.take(packet),
                    Ok(None) => break None,
                    Err(malformed) => break Some(error::malformed(&shared.endpoint, malformed)),
                }
            },
            Err(source) => Some(error::broken(&shared.endpoint, &source)),
        };
        if let Some(error) = error {
            shared.end(&error);
            return;
        }
    }
}

/// Reads and writes until the connection ends.
///
/// A connection that is closed with something unread takes back what was written last; so the server is told that nothing
/// more comes, and is to close it.
async fn drive(shared: Arc<Shared>, reading: OwnedReadHalf, bytes_max: usize) {
    let mut reader = tokio::spawn(read(Arc::clone(&shared), reading, bytes_max));
    let socket = shared.lock().socket.clone();
    if let Some(socket) = socket
        && let Err(error) = write(&shared, &socket).await
    {
        shared.end(&error::broken(&shared.endpoint, &error));
    }
    if tokio::time::timeout(LINGER, &mut reader).await.is_err() {
        reader.abort();
    }
}

/// Writes what could not be written at once, until the connection is closed or has ended.
async fn write(shared: &Shared, socket: &OwnedWriteHalf) -> std::io::Result<()> {
    loop {
        loop {
            {
                let mut state = shared.lock();
                if state.ended.is_some() {
                    return Ok(());
                }
                if state.outgoing.is_empty() {
                    if state.socket.is_none() {
                        return Ok(());
                    }
                    break;
                }
                match socket.try_write(&state.outgoing) {
                    Ok(written) => drop(state.outgoing.split_to(written)),
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error),
                }
            }
            socket.writable().await?;
        }
        shared.more.notified().await;
    }
}
