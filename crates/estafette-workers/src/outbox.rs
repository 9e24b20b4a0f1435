//! The bytes that wait for one peer.

use std::{collections::VecDeque, io, io::IoSlice};

use bytes::{Buf as _, Bytes, BytesMut};

use crate::{
    frame::{self, Frame},
    socket::Writing,
    wire::{Parcel, Wire},
};

/// From this size on a parcel is shared with other outboxes rather than copied.
const SHARED_BYTES_MIN: usize = 16 << 10;

/// How many pieces one write takes.
const PIECES_MAX: usize = 32;

/// How much of an emptied buffer is kept for the next messages.
const KEPT_BYTES_MAX: usize = 128 << 10;

/// A queue of bytes in the order they leave: first the sealed pieces, then the tail that still grows.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    sealed: VecDeque<Bytes>,
    tail: BytesMut,
    sealed_bytes: usize,
}

impl Outbox {
    /// How many bytes wait.
    pub(crate) fn bytes(&self) -> usize {
        self.sealed_bytes + self.tail.len()
    }

    /// Appends a send, or a request when it has an id. On an error nothing is appended.
    pub(crate) fn put_parcel(
        &mut self,
        wire: Wire,
        id: Option<u64>,
        parcel: &Parcel,
    ) -> estafette_core::Result<()> {
        match wire {
            Wire::Frames => {
                let rest = parcel.rest();
                frame::encode_head(id, rest.len(), &mut self.tail);
                if rest.len() < SHARED_BYTES_MIN {
                    self.tail.extend_from_slice(rest);
                } else {
                    self.seal(rest.clone());
                }
                Ok(())
            }
            Wire::Lines => {
                let (action, body) = parcel.open()?;
                let frame = match id {
                    Some(id) => Frame::Request { id, action, body },
                    None => Frame::Send { action, body },
                };
                self.put_frame(wire, &frame)
            }
        }
    }

    /// Appends any frame. On an error nothing is appended.
    pub(crate) fn put_frame(&mut self, wire: Wire, frame: &Frame) -> estafette_core::Result<()> {
        wire.encode(frame, &mut self.tail)
    }

    /// Closes the tail and puts `piece` behind it.
    fn seal(&mut self, piece: Bytes) {
        if !self.tail.is_empty() {
            let tail = self.tail.split().freeze();
            self.sealed_bytes += tail.len();
            self.sealed.push_back(tail);
        }
        self.sealed_bytes += piece.len();
        self.sealed.push_back(piece);
    }

    /// Writes what the socket takes now; whether nothing is left.
    pub(crate) fn flush(&mut self, socket: &Writing) -> io::Result<bool> {
        while self.bytes() > 0 {
            let written =
                if self.sealed.is_empty() { socket.try_write(&self.tail) } else { self.write_pieces(socket) };
            match written {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => self.advance(written),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    fn write_pieces(&self, socket: &Writing) -> io::Result<usize> {
        let mut pieces: Vec<IoSlice<'_>> =
            self.sealed.iter().take(PIECES_MAX).map(|piece| IoSlice::new(piece)).collect();
        if pieces.len() < PIECES_MAX && !self.tail.is_empty() {
            pieces.push(IoSlice::new(&self.tail));
        }
        socket.try_write_vectored(&pieces)
    }

    fn advance(&mut self, mut written: usize) {
        while let Some(first) = self.sealed.front_mut() {
            let taken = written.min(first.len());
            first.advance(taken);
            self.sealed_bytes -= taken;
            written -= taken;
            if !first.is_empty() {
                return;
            }
            self.sealed.pop_front();
        }
        if written < self.tail.len() {
            self.tail.advance(written);
        } else if self.tail.capacity() > KEPT_BYTES_MAX {
            self.tail = BytesMut::new();
        } else {
            self.tail.clear();
        }
    }
}
