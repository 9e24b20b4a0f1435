//! The bytes that wait for one peer.

use std::{collections::VecDeque, io, io::IoSlice};

use bytes::{Buf as _, Bytes, BytesMut};

use crate::{
    frame::{self, Frame},
    lines,
    socket::Writing,
    wire::{Parcel, Rest, Wire},
};

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
                frame::encode_head(id, parcel.len(), &mut self.tail);
                match parcel.rest() {
                    Rest::Small(rest) => self.tail.extend_from_slice(rest),
                    Rest::Large(rest) => self.seal(rest.clone()),
                }
                Ok(())
            }
            Wire::Lines => wire.encode_with(&mut self.tail, |tail| match parcel.view(id) {
                Some(view) => lines::encode_message(view, tail),
                None => Err(frame::undecodable("a parcel without an action")),
            }),
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
