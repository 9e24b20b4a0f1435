//! The two halves of a connected Unix socket.
//!
//! Tokio's own halves watch for reading and writing at once, and so wake a process each time its peer has read something: one
//! useless wake-up per message. Here only reading is watched; writing is tried at once, and watched while it has to wait.
//! Tokio watches one direction for the ends of pipes, which are files like sockets to everything but their names.

use std::{
    cell::RefCell,
    fs::File,
    io::{self, IoSlice, Write as _},
    net::Shutdown,
    os::{fd::OwnedFd, unix::net::UnixStream},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::BytesMut;
use tokio::{
    io::{AsyncRead as _, ReadBuf},
    net::unix::pipe,
};

use crate::patience::Patience;

/// Splits a connected socket.
///
/// # Errors
///
/// When the process has no descriptor left, or the runtime cannot watch it.
pub(crate) fn split(socket: tokio::net::UnixStream) -> io::Result<(Reading, Writing)> {
    let socket = socket.into_std()?;
    let reading = File::from(OwnedFd::from(socket.try_clone()?));
    Ok((Reading { watched: pipe::Receiver::from_file_unchecked(reading)? }, Writing { socket }))
}

/// How much is read at once.
const READ_BYTES_MAX: usize = 128 << 10;

thread_local! {
    /// Where all connections of a thread read to: their own buffers hold only frames that are not whole yet.
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_BYTES_MAX]);
}

/// The reading half.
#[derive(Debug)]
pub(crate) struct Reading {
    watched: pipe::Receiver,
}

impl Reading {
    /// Appends what has come to `buffer`, looking a few times before it sleeps; how many bytes, zero at the end.
    pub(crate) async fn read_soon(
        &mut self,
        buffer: &mut BytesMut,
        patience: &Patience,
    ) -> io::Result<usize> {
        match patience.look(|context| self.poll_read(context, buffer)).await {
            Some(read) => read,
            None => self.read(buffer).await,
        }
    }

    /// Appends what has come to `buffer`; how many bytes, zero at the end. Can be cancelled.
    pub(crate) async fn read(&mut self, buffer: &mut BytesMut) -> io::Result<usize> {
        std::future::poll_fn(|context| self.poll_read(context, buffer)).await
    }

    fn poll_read(&mut self, context: &mut Context<'_>, buffer: &mut BytesMut) -> Poll<io::Result<usize>> {
        SCRATCH.with_borrow_mut(|scratch| {
            let mut space = ReadBuf::new(scratch);
            ready!(Pin::new(&mut self.watched).poll_read(context, &mut space))?;
            buffer.extend_from_slice(space.filled());
            Poll::Ready(Ok(space.filled().len()))
        })
    }
}

/// The writing half.
#[derive(Debug)]
pub(crate) struct Writing {
    socket: UnixStream,
}

impl Writing {
    /// Writes what the socket takes at once.
    pub(crate) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        (&self.socket).write(bytes)
    }

    /// Writes what the socket takes at once.
    pub(crate) fn try_write_vectored(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        (&self.socket).write_vectored(pieces)
    }

    /// Waits until the socket takes something, or its peer has closed it.
    pub(crate) async fn writable(&self) -> io::Result<()> {
        // A descriptor of its own, watched for as long as this waits.
        let waiting = File::from(OwnedFd::from(self.socket.try_clone()?));
        pipe::Sender::from_file_unchecked(waiting)?.writable().await
    }

    /// Closes this half for both sides.
    pub(crate) fn shut(&self) -> io::Result<()> {
        self.socket.shutdown(Shutdown::Write)
    }
}
