//! A connection's task: reads, cuts what came into messages, writes what could not be written at once, and ends.
//!
//! The task is a hand-written loop over readiness, not two tasks and a queue between them: one small allocation per
//! connection, and a message is answered in the turn in which it was read.

use std::{
    future::poll_fn,
    rc::Rc,
    task::{Context, Poll},
};

use bytes::Bytes;

use super::{
    Core,
    connection::{Connection, Phase},
};
use crate::{
    settings::Protocol,
    stats::{CloseReason, Counters},
    websocket::{
        accept, close,
        close::CloseCode,
        decoder::{Decoder, Event},
        frame::{self, Opcode},
        handshake::{Handshake, Refusal},
    },
};

/// Reads of one turn; then others have theirs.
const READS_MAX: usize = 16;

/// What only the task needs between its turns.
#[derive(Default)]
struct Reader {
    decoder: Decoder,
    /// Bytes that are no whole frame or request yet, or wait because the connection is held.
    leftover: Vec<u8>,
    has_ended: bool,
    is_shut: bool,
}

/// Runs a connection to its end. It must not be subject to the runtime's cooperative budget: a publish writes to
/// thousands of sockets in one turn.
pub(crate) async fn drive(core: Rc<Core>, connection: Rc<Connection>) {
    let mut reader = Reader::default();
    if connection.server.settings.protocol == Protocol::Socket {
        open(&core, &connection, None);
        core.flush();
    }
    tokio::task::coop::unconstrained(poll_fn(|cx| {
        let turn = turn(&core, &connection, &mut reader, cx);
        core.flush();
        turn
    }))
    .await;
    core.remove(&connection);
}

fn turn(core: &Core, connection: &Rc<Connection>, reader: &mut Reader, cx: &mut Context<'_>) -> Poll<()> {
    {
        let mut waker = connection.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
    }
    core.flush_one(connection);
    if !reader.leftover.is_empty() && connection.phase.get() != Phase::Aborted {
        let mut bytes = std::mem::take(&mut reader.leftover);
        match take(core, connection, reader, &mut bytes) {
            0 => reader.leftover = bytes,
            taken => keep(reader, &bytes, taken),
        }
    }
    for _ in 0..READS_MAX {
        match connection.phase.get() {
            Phase::Aborted => return Poll::Ready(()),
            Phase::Closing => return finish(core, connection, reader, cx),
            Phase::Opening | Phase::Open => {}
        }
        if connection.holds_enough()
            || (!connection.is_websocket() && connection.is_held() && buffer_is_full(connection))
        {
            return Poll::Pending;
        }
        match read(core, connection, reader, cx) {
            Poll::Ready(true) => {}
            Poll::Ready(false) => {
                core.abort(connection, CloseReason::Lost);
                return Poll::Ready(());
            }
            Poll::Pending => return Poll::Pending,
        }
    }
    cx.waker().wake_by_ref();
    Poll::Pending
}

/// Reads once and works on what came; false at the end of the stream.
fn read(core: &Core, connection: &Rc<Connection>, reader: &mut Reader, cx: &mut Context<'_>) -> Poll<bool> {
    let mut scratch = core.scratch.borrow_mut();
    let read = connection.stream.borrow_mut().poll_read(cx, &mut scratch);
    let length = match read {
        Poll::Pending => return Poll::Pending,
        Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(false),
        Poll::Ready(Ok(length)) => length,
    };
    connection.heard.set(core.now());
    connection.is_pinged.set(false);
    Counters::add(&core.counters.bytes_in, length as u64);
    let bytes = scratch.get_mut(..length).unwrap_or_default();
    if reader.leftover.is_empty() {
        let taken = take(core, connection, reader, bytes);
        keep(reader, bytes, taken);
    } else {
        let mut whole = std::mem::take(&mut reader.leftover);
        whole.extend_from_slice(bytes);
        // A large frame comes in many reads: nothing is to be done until all of it is here.
        let is_waiting = connection.is_open()
            && Decoder::frame_length(&whole).is_some_and(|length| {
                length > whole.len() && length <= connection.server.settings.limits.message.message_max
            });
        let taken = if is_waiting { 0 } else { take(core, connection, reader, &mut whole) };
        if taken == 0 {
            reader.leftover = whole;
        } else {
            keep(reader, &whole, taken);
        }
    }
    Poll::Ready(true)
}

fn keep(reader: &mut Reader, bytes: &[u8], taken: usize) {
    reader.leftover = bytes.get(taken..).unwrap_or_default().to_vec();
}

/// Works on bytes; returns how many are done with.
fn take(core: &Core, connection: &Rc<Connection>, reader: &mut Reader, bytes: &mut [u8]) -> usize {
    if connection.server.settings.protocol == Protocol::Socket {
        connection.buffer.borrow_mut().extend_from_slice(bytes);
        let application = Rc::clone(&connection.server.application);
        application.on_bytes(core, connection);
        if connection.is_open() && !connection.is_held() && buffer_is_full(connection) {
            core.close(connection, CloseReason::TooLarge, CloseCode::TOO_LARGE, "");
        }
        return bytes.len();
    }
    let mut taken = 0;
    if connection.phase.get() == Phase::Opening {
        taken = take_handshake(core, connection, bytes);
    }
    if connection.is_open() {
        taken += take_frames(core, connection, reader, bytes.get_mut(taken..).unwrap_or_default());
    }
    taken
}

fn buffer_is_full(connection: &Connection) -> bool {
    connection.buffer.borrow().len() >= connection.server.settings.limits.buffer_max
}

fn take_handshake(core: &Core, connection: &Rc<Connection>, bytes: &[u8]) -> usize {
    match Handshake::parse(bytes, &connection.server.settings.limits.handshake) {
        Ok(None) => 0,
        Ok(Some((handshake, length))) => {
            if let Err(refusal) = check(connection, &handshake) {
                refuse(core, connection, refusal);
            } else {
                open(core, connection, Some(&handshake));
            }
            length
        }
        Err(refusal) => {
            refuse(core, connection, refusal);
            bytes.len()
        }
    }
}

fn check(connection: &Connection, handshake: &Handshake) -> Result<(), Refusal> {
    let settings = &connection.server.settings;
    if settings.path.as_deref().is_some_and(|path| path != handshake.path()) {
        return Err(Refusal::Path);
    }
    if !handshake.origin_is_allowed(&settings.origins) {
        return Err(Refusal::Origin);
    }
    Ok(())
}

/// Lets the connection take part, if its application wants it. The answer to the handshake goes before anything that
/// the application sends.
fn open(core: &Core, connection: &Rc<Connection>, handshake: Option<&Handshake>) {
    if let Some(handshake) = handshake {
        let known = &connection.server.settings.protocols;
        let protocol = handshake.protocols.iter().find(|offered| known.contains(offered));
        let answer = accept::accept(&handshake.key, protocol.map(String::as_str));
        core.push_control(connection, Bytes::from(answer));
    }
    connection.phase.set(Phase::Open);
    connection.is_announced.set(true);
    let application = Rc::clone(&connection.server.application);
    if application.on_open(core, connection, handshake).is_ok() {
        Counters::add(&core.counters.handshakes, u64::from(handshake.is_some()));
        return;
    }
    connection.is_announced.set(false);
    if handshake.is_some() {
        connection.outbox.borrow_mut().clear();
        refuse(core, connection, Refusal::Forbidden);
    } else {
        core.close(connection, CloseReason::Handshake, CloseCode::POLICY, "");
    }
}

fn refuse(core: &Core, connection: &Rc<Connection>, refusal: Refusal) {
    connection.phase.set(Phase::Opening);
    core.push_control(connection, Bytes::from(accept::refuse(refusal)));
    core.close(connection, CloseReason::Handshake, CloseCode::POLICY, "");
}

fn take_frames(core: &Core, connection: &Rc<Connection>, reader: &mut Reader, bytes: &mut [u8]) -> usize {
    let mut taken = 0;
    while connection.is_open() && !connection.holds_enough() {
        let rest = bytes.get_mut(taken..).unwrap_or_default();
        let (length, event) = match reader.decoder.decode(rest, &connection.server.settings.limits.message) {
            Ok(Some(decoded)) => decoded,
            Ok(None) => break,
            Err(fault) => {
                let is_large = fault.code == CloseCode::TOO_LARGE;
                let reason = if is_large { CloseReason::TooLarge } else { CloseReason::Protocol };
                core.close(connection, reason, fault.code, fault.reason);
                return bytes.len();
            }
        };
        match event {
            Some(Event::Message { kind, data }) => {
                Counters::add(&core.counters.messages_in, 1);
                core.deliver(connection, kind, &data);
            }
            Some(Event::Ping(body)) => pong(core, connection, body),
            Some(Event::Close(peer)) => {
                reader.has_ended = true;
                let code = peer.map_or(CloseCode::NORMAL, |close| close.code);
                core.push_control(connection, close::encode(code, ""));
                connection.phase.set(Phase::Closing);
                connection.reason.set(CloseReason::Peer);
                connection.heard.set(core.now());
                return bytes.len();
            }
            Some(Event::Pong(_)) | None => {}
        }
        taken += length;
    }
    taken
}

/// Answers a ping, unless answers wait already: a flood of pings from somebody who reads nothing is not kept.
fn pong(core: &Core, connection: &Rc<Connection>, body: &[u8]) {
    if connection.outbox.borrow().bytes() <= connection.server.settings.limits.queued_max / 2 {
        core.push_control(connection, frame::encode(Opcode::Pong, body));
    }
}

/// The last turns: writes what waits, says that nothing more comes, and awaits the peer's end. The clock ends it if
/// the peer does not.
fn finish(core: &Core, connection: &Rc<Connection>, reader: &mut Reader, cx: &mut Context<'_>) -> Poll<()> {
    core.flush_one(connection);
    if connection.phase.get() == Phase::Aborted {
        return Poll::Ready(());
    }
    if !connection.outbox.borrow().is_empty() {
        return Poll::Pending;
    }
    if !reader.is_shut {
        match connection.stream.borrow_mut().poll_shutdown(cx) {
            Poll::Ready(Ok(())) => reader.is_shut = true,
            Poll::Ready(Err(_)) => return Poll::Ready(()),
            Poll::Pending => return Poll::Pending,
        }
    }
    // Closing a socket with unread bytes would reset it, and the peer might lose what was written last.
    let mut scratch = core.scratch.borrow_mut();
    for _ in 0..READS_MAX {
        match connection.stream.borrow_mut().poll_read(cx, &mut scratch) {
            Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(()),
            Poll::Ready(Ok(_)) if reader.has_ended => return Poll::Ready(()),
            Poll::Ready(Ok(_)) => {}
            Poll::Pending if reader.has_ended => return Poll::Ready(()),
            Poll::Pending => return Poll::Pending,
        }
    }
    cx.waker().wake_by_ref();
    Poll::Pending
}
