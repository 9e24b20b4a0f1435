//! The writing side of a connection: who writes when, and who waits for room.
//!
//! The first message after a pause is written at once, by whoever sends it. What is sent after that within the same
//! turn of the scheduler is collected and leaves in one write: when the turn ends, or when enough has come together.
//! So a lone request pays for no hand-over to another task, and a flood pays for few system calls.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use estafette_core::{Error, ErrorKind, Result};
use tokio::{sync::Notify, time::Instant};

use crate::{
    frame::Frame,
    outbox::Outbox,
    socket::Writing,
    wire::{Parcel, Wire},
};

/// What has come together when a turn's messages are written before its end.
const WRITE_BYTES: usize = 64 << 10;

/// What became of a message given to a pipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Put {
    /// It is written or queued.
    Taken,
    /// The queue is full; wait for room and try again.
    NoRoom,
    /// The connection ended.
    Closed,
}

/// The writing side of a connection.
#[derive(Debug)]
pub(crate) struct Pipe {
    wire: Wire,
    socket: Writing,
    bytes_max: usize,
    state: Mutex<State>,
    /// Wakes the task that writes what is left at the end of a turn.
    turn: Notify,
    /// Wakes those who wait for room, and for the end.
    room: Notify,
}

#[derive(Debug, Default)]
struct State {
    outbox: Outbox,
    /// Somebody has written in this turn and will look again at its end.
    in_turn: bool,
    /// What waits is still written, but nothing more is taken.
    finishing: bool,
    closed: bool,
}

impl Pipe {
    pub(crate) fn new(wire: Wire, socket: Writing, bytes_max: usize) -> Self {
        let state = Mutex::new(State::default());
        Self { wire, socket, bytes_max, state, turn: Notify::new(), room: Notify::new() }
    }

    /// Gives a message, or a request when it has an id, to the connection without waiting.
    ///
    /// # Errors
    ///
    /// When the peer speaks lines and the body has no JSON form.
    pub(crate) fn put_parcel(&self, id: Option<u64>, parcel: &Parcel) -> Result<Put> {
        self.put(parcel.len(), |outbox| outbox.put_parcel(self.wire, id, parcel))
    }

    /// Gives a frame to the connection without waiting and whatever waits there already.
    ///
    /// Only for frames whose number is bounded by other means: replies to the requests that were read.
    ///
    /// # Errors
    ///
    /// When the peer speaks lines and the body has no JSON form.
    pub(crate) fn put_frame(&self, frame: &Frame) -> Result<Put> {
        self.put(0, |outbox| outbox.put_frame(self.wire, frame))
    }

    fn put(&self, bytes: usize, append: impl FnOnce(&mut Outbox) -> Result<()>) -> Result<Put> {
        let mut state = self.lock();
        if state.closed || state.finishing {
            return Ok(Put::Closed);
        }
        let waiting = state.outbox.bytes();
        if bytes > 0 && waiting > 0 && waiting + bytes > self.bytes_max {
            return Ok(Put::NoRoom);
        }
        append(&mut state.outbox)?;
        if !state.in_turn {
            state.in_turn = true;
            self.write(&mut state);
            self.turn.notify_one();
        } else if waiting < WRITE_BYTES && state.outbox.bytes() >= WRITE_BYTES {
            self.write(&mut state);
        }
        Ok(if state.closed { Put::Closed } else { Put::Taken })
    }

    /// Begins a turn that [`end_turn`](Self::end_turn) ends: nothing is written in between unless much comes together.
    pub(crate) fn begin_turn(&self) {
        self.lock().in_turn = true;
    }

    /// Writes what came together since [`begin_turn`](Self::begin_turn).
    pub(crate) fn end_turn(&self) {
        let mut state = self.lock();
        if self.write(&mut state) {
            state.in_turn = false;
        } else {
            self.turn.notify_one();
        }
    }

    /// Writes what the socket takes; whether nothing is left.
    fn write(&self, state: &mut State) -> bool {
        let is_full = state.outbox.bytes() * 2 > self.bytes_max;
        match state.outbox.flush(&self.socket) {
            Ok(is_empty) => {
                if is_full && state.outbox.bytes() * 2 <= self.bytes_max {
                    self.room.notify_waiters();
                }
                is_empty
            }
            Err(error) => {
                let lost = state.outbox.bytes();
                tracing::warn!(%error, lost, "a connection broke with bytes that were not written");
                state.closed = true;
                state.outbox = Outbox::default();
                self.room.notify_waiters();
                true
            }
        }
    }

    /// Writes what is left at the end of each turn, until the connection ends. Run as a task of its own.
    pub(crate) async fn run(&self) {
        loop {
            self.turn.notified().await;
            loop {
                {
                    let mut state = self.lock();
                    if self.write(&mut state) {
                        state.in_turn = false;
                        if state.closed {
                            return;
                        }
                        self.room.notify_waiters();
                        break;
                    }
                }
                if let Err(error) = self.socket.writable().await {
                    tracing::debug!(%error, "a connection broke while waiting to write");
                    self.close();
                    return;
                }
            }
        }
    }

    /// Waits until less than half of the queue is used, or the connection ended.
    pub(crate) async fn room(&self) {
        self.wait_until(|state| state.outbox.bytes() * 2 <= self.bytes_max).await;
    }

    async fn wait_until(&self, is_true: impl Fn(&State) -> bool) {
        loop {
            let mut notified = std::pin::pin!(self.room.notified());
            // Registered before looking, so that a change in between is not missed.
            notified.as_mut().enable();
            {
                let state = self.lock();
                if state.closed || is_true(&state) {
                    return;
                }
            }
            notified.await;
        }
    }

    /// Writes everything and closes the writing side; the peer's replies can still be read.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::TimedOut`] when the peer does not take what is left within `wait_max`; it is lost then.
    pub(crate) async fn finish(&self, wait_max: Duration) -> Result<()> {
        let deadline = Instant::now() + wait_max;
        self.lock().finishing = true;
        let emptied = self.wait_until(|state| state.outbox.bytes() == 0);
        let is_late = tokio::time::timeout_at(deadline, emptied).await.is_err();
        let lost = self.lock().outbox.bytes();
        self.close();
        if is_late {
            let sentence = format!("a peer did not take the last {lost} bytes within {wait_max:?}");
            return Err(Error::new(ErrorKind::TimedOut, sentence));
        }
        Ok(())
    }

    /// Closes the writing side and drops what waits.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        if !state.closed {
            state.closed = true;
            state.outbox = Outbox::default();
            if let Err(error) = self.socket.shut() {
                tracing::trace!(%error, "the peer had closed the connection before");
            }
        }
        drop(state);
        self.room.notify_waiters();
        self.turn.notify_one();
    }

    /// Whether nothing can be sent any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// How many bytes wait to be written.
    pub(crate) fn waiting_bytes(&self) -> usize {
        self.lock().outbox.bytes()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
