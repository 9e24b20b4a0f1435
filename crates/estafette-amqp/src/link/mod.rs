//! A connection to a broker: one socket, its channels, and the two tasks that read and write.
//!
//! Everything to be sent is appended to one buffer; whoever writes next, the writing task or a caller that wants it out at
//! once, hands the socket whatever has gathered in one system call. The reading task handles every frame of what one system call brought before it wakes anybody.
//! A link is used until it breaks and never repaired: whoever needs one asks `connector` for the next.
//!
//! Reading order: `stream` (TCP, TLS), `open` (the opening of a connection), `tasks` (reading, writing, heartbeats),
//! `dispatch` (which channel a frame is for), `channel`.

mod channel;
mod dispatch;
mod open;
mod stream;
mod tasks;

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use estafette_core::{Error, Result};
use tokio::{sync::Notify, task::AbortHandle, time::Instant};

pub(crate) use channel::{Channel, Content, Reply};
pub(crate) use dispatch::Events;
pub(crate) use open::open;

use crate::{error, protocol::request};
use dispatch::Channels;
use stream::Direct;

/// How many bytes may wait to be written before publishers are held up.
const WAITING_BYTES_MAX: usize = 4 << 20;

/// Buffers that grew larger than this are not kept.
const KEPT_BYTES_MAX: usize = 1 << 20;

/// How long what can wait may wait for more to be written along with it.
const GATHERING: Duration = Duration::from_millis(1);

/// How long an orderly goodbye may take.
const GOODBYE: Duration = Duration::from_secs(2);

/// A connection to a broker.
pub(crate) struct Link {
    shared: Arc<Shared>,
    tasks: Vec<AbortHandle>,
}

/// What the tasks and the channels share.
pub(crate) struct Shared {
    out: Mutex<Out>,
    /// There is something to write, or the link has ended.
    wake_writer: Notify,
    /// There is something to write that can wait a moment.
    wake_writer_later: Notify,
    /// Something was written, or the link has ended.
    written: Notify,
    channels: Mutex<Channels>,
    ended: Mutex<Option<Error>>,
    has_ended: AtomicBool,
    ended_notify: Notify,
    blocked: AtomicBool,
    /// Whether the broker takes publications changed, or the link has ended.
    blocked_changed: Notify,
    started: Instant,
    /// Milliseconds from `started`.
    last_read: AtomicU64,
    pub(crate) frame_max: usize,
    pub(crate) heartbeat: Duration,
    pub(crate) call_timeout: Duration,
}

/// What is to be written.
#[derive(Default)]
struct Out {
    buffer: Vec<u8>,
    /// Whether the writing task was woken since the buffer was empty.
    woken: bool,
    /// Whether the writing task is writing what was here before: nobody else may write then.
    writing: bool,
    /// The socket, for whoever wants to write at once; none with TLS, and none after the link has ended.
    socket: Option<Direct>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// Appends to what is to be written. Does nothing on a link that has ended.
    pub(crate) fn write(&self, encode: impl FnOnce(&mut Vec<u8>)) {
        if self.has_ended() {
            return;
        }
        let mut out = lock(&self.out);
        encode(&mut out.buffer);
        let wakes = !std::mem::replace(&mut out.woken, true);
        drop(out);
        if wakes {
            self.wake_writer.notify_one();
        }
    }

    /// Appends to what is to be written soon, along with more: a broker spends more on a packet than on what is in it.
    pub(crate) fn write_later(&self, encode: impl FnOnce(&mut Vec<u8>)) {
        if self.has_ended() {
            return;
        }
        let mut out = lock(&self.out);
        let wakes = out.buffer.is_empty();
        encode(&mut out.buffer);
        drop(out);
        if wakes {
            self.wake_writer_later.notify_one();
        }
    }

    /// Hands the socket what has gathered, from here: without a turn of the writing task, and done when this returns unless
    /// the socket takes no more.
    pub(crate) fn write_now(&self) {
        let mut out = lock(&self.out);
        // What the writing task finds after its turn, it writes too.
        if out.writing || out.buffer.is_empty() {
            return;
        }
        let Out { buffer, socket, woken, .. } = &mut *out;
        let written = socket.as_ref().map_or(0, |socket| socket.try_write(buffer));
        if written == buffer.len() {
            buffer.clear();
            buffer.shrink_to(KEPT_BYTES_MAX);
            *woken = false;
            return;
        }
        buffer.drain(..written);
        let wakes = !std::mem::replace(woken, true);
        drop(out);
        if wakes {
            self.wake_writer.notify_one();
        }
    }

    /// Takes what has gathered into `batch`, which is empty, for the writing task.
    fn take_out(&self, batch: &mut Vec<u8>) {
        let mut out = lock(&self.out);
        std::mem::swap(batch, &mut out.buffer);
        out.woken = false;
        out.writing = !batch.is_empty();
    }

    fn has_ended(&self) -> bool {
        self.has_ended.load(Ordering::Acquire)
    }

    fn error(&self) -> Option<Error> {
        if self.has_ended() { lock(&self.ended).clone() } else { None }
    }

    /// Ends the link for everybody, once.
    fn end(&self, error: &Error) {
        {
            let mut ended = lock(&self.ended);
            if ended.is_some() {
                return;
            }
            *ended = Some(error.clone());
            self.has_ended.store(true, Ordering::Release);
        }
        let entries = lock(&self.channels).take_all();
        for entry in entries {
            entry.close(error);
        }
        {
            let mut out = lock(&self.out);
            out.buffer.clear();
            out.socket = None;
        }
        self.wake_writer.notify_one();
        self.written.notify_waiters();
        self.ended_notify.notify_waiters();
        self.blocked_changed.notify_waiters();
    }

    fn set_blocked(&self, blocked: bool) {
        self.blocked.store(blocked, Ordering::Release);
        self.blocked_changed.notify_waiters();
    }
}

impl Link {
    pub(crate) fn is_open(&self) -> bool {
        !self.shared.has_ended()
    }

    /// Why the link has ended.
    pub(crate) fn error(&self) -> Option<Error> {
        self.shared.error()
    }

    /// Opens a channel; what the broker sends on it by itself goes to `events`.
    pub(crate) async fn channel(self: &Arc<Self>, events: Arc<dyn Events>) -> Result<Channel> {
        let (id, entry) = {
            let mut channels = lock(&self.shared.channels);
            channels.add(events)?
        };
        let channel = Channel::new(Arc::clone(self), id, entry);
        if let Some(error) = self.error() {
            return Err(error);
        }
        channel.call(request::channel_open).await?;
        Ok(channel)
    }

    /// Waits until not much is left to be written.
    pub(crate) async fn room(&self) -> Result<()> {
        loop {
            let written = self.shared.written.notified();
            if let Some(error) = self.error() {
                return Err(error);
            }
            if lock(&self.shared.out).buffer.len() < WAITING_BYTES_MAX {
                return Ok(());
            }
            written.await;
        }
    }

    /// Waits until the broker takes publications again, should it have said that it does not.
    pub(crate) async fn unblocked(&self) -> Result<()> {
        loop {
            let changed = self.shared.blocked_changed.notified();
            if let Some(error) = self.error() {
                return Err(error);
            }
            if !self.shared.blocked.load(Ordering::Acquire) {
                return Ok(());
            }
            changed.await;
        }
    }

    pub(crate) fn is_blocked(&self) -> bool {
        self.shared.blocked.load(Ordering::Acquire)
    }

    /// Says goodbye after everything was written, and waits a moment for the answer.
    pub(crate) async fn close(&self) {
        let ended = self.shared.ended_notify.notified();
        if self.is_open() {
            self.shared.write(request::connection_close);
            // No answer within the time is as good: the broker notices the closed socket.
            drop(tokio::time::timeout(GOODBYE, ended).await);
        }
        self.shared.end(&error::closed());
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.shared.end(&error::closed());
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// A message with how it came.
#[derive(Clone, Debug)]
pub(crate) struct Incoming {
    pub(crate) tag: u64,
    pub(crate) redelivered: bool,
    /// The exchange and the routing key it was published with, as short strings.
    pub(crate) origin: Bytes,
    pub(crate) content: Content,
}
