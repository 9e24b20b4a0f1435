//! The tasks of a link: one reads, one writes and keeps time.

use std::{
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use estafette_core::Result;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::Instant,
};

use super::{GATHERING, KEPT_BYTES_MAX, Shared, dispatch::Dispatch};
use crate::{
    error,
    protocol::{Frame, request},
};

/// What one system call reads at most.
const READ_BYTES: usize = 64 << 10;

/// Cuts what comes into frames.
pub(crate) struct FrameReader {
    stream: Pin<Box<dyn AsyncRead + Send>>,
    buffer: BytesMut,
    frame_max: usize,
}

impl FrameReader {
    pub(crate) fn new(stream: Pin<Box<dyn AsyncRead + Send>>, frame_max: usize) -> Self {
        Self { stream, buffer: BytesMut::new(), frame_max }
    }

    /// One frame, in the bytes it came in.
    pub(crate) async fn frame(&mut self) -> Result<(Bytes, Frame)> {
        loop {
            if let Some(frame) = Frame::at(&self.buffer, 0, self.frame_max).map_err(error::malformed)? {
                return Ok((self.buffer.split_to(frame.end()).freeze(), frame));
            }
            self.fill().await?;
        }
    }

    /// Every complete frame of what has come; at least one.
    async fn frames(&mut self, frames: &mut Vec<Frame>) -> Result<Bytes> {
        frames.clear();
        loop {
            let mut end = 0;
            while let Some(frame) = Frame::at(&self.buffer, end, self.frame_max).map_err(error::malformed)? {
                end = frame.end();
                frames.push(frame);
            }
            if end > 0 {
                return Ok(self.buffer.split_to(end).freeze());
            }
            self.fill().await?;
        }
    }

    async fn fill(&mut self) -> Result<()> {
        self.buffer.reserve(READ_BYTES);
        match self.stream.read_buf(&mut self.buffer).await {
            Ok(0) => Err(error::hung_up()),
            Ok(_) => Ok(()),
            Err(source) => Err(error::broken(source)),
        }
    }
}

/// Reads until the link ends.
pub(crate) async fn read(shared: Arc<Shared>, mut reader: FrameReader) {
    let mut dispatch = Dispatch::new(Arc::clone(&shared));
    let mut frames = Vec::new();
    while !shared.has_ended() {
        let handled = match reader.frames(&mut frames).await {
            Ok(chunk) => {
                let read_at = u64::try_from(shared.started.elapsed().as_millis()).unwrap_or(u64::MAX);
                shared.last_read.store(read_at, Ordering::Release);
                dispatch.frames(&chunk, &frames)
            }
            Err(error) => Err(error),
        };
        if let Err(error) = handled {
            shared.end(&error);
        }
    }
}

/// Writes whatever has gathered, and keeps the connection alive, until the link ends.
pub(crate) async fn write(shared: Arc<Shared>, mut stream: Pin<Box<dyn AsyncWrite + Send>>) {
    let mut batch = Vec::new();
    let beat = if shared.heartbeat.is_zero() { Duration::from_secs(3600) } else { shared.heartbeat / 2 };
    let mut next_beat = Instant::now() + beat;
    while !shared.has_ended() {
        shared.take_out(&mut batch);
        if batch.is_empty() {
            tokio::select! {
                () = shared.wake_writer.notified() => continue,
                () = shared.wake_writer_later.notified() => {
                    // Either way there may be something to write.
                    drop(tokio::time::timeout(GATHERING, shared.wake_writer.notified()).await);
                    continue;
                }
                () = tokio::time::sleep_until(next_beat) => {}
            }
            next_beat = Instant::now() + beat;
            if is_silent(&shared) {
                shared.end(&error::silent(shared.heartbeat));
                break;
            }
            if !shared.heartbeat.is_zero() {
                request::heartbeat(&mut batch);
            }
        }
        if let Err(error) = write_batch(&shared, &mut stream, &batch).await {
            shared.end(&error);
        }
        batch.clear();
        batch.shrink_to(KEPT_BYTES_MAX);
        shared.written.notify_waiters();
    }
    // The broker notices an end of the stream at once, and a vanished socket only by its heartbeat.
    drop(tokio::time::timeout(Duration::from_secs(1), stream.shutdown()).await);
}

async fn write_batch(
    shared: &Shared,
    stream: &mut Pin<Box<dyn AsyncWrite + Send>>,
    batch: &[u8],
) -> Result<()> {
    let writing = async {
        stream.write_all(batch).await?;
        stream.flush().await
    };
    tokio::pin!(writing);
    let beat = if shared.heartbeat.is_zero() { Duration::from_secs(3600) } else { shared.heartbeat };
    loop {
        tokio::select! {
            written = &mut writing => return written.map_err(error::broken),
            // A broker that does not read (it is busy, or blocks us) still sends; one that does neither is gone.
            () = tokio::time::sleep(beat) => {
                if is_silent(shared) {
                    return Err(error::silent(shared.heartbeat));
                }
            }
            () = shared.ended_notify.notified() => return Ok(()),
        }
    }
}

/// Whether the broker has sent nothing for two heartbeats and a bit.
fn is_silent(shared: &Shared) -> bool {
    let last_read = Duration::from_millis(shared.last_read.load(Ordering::Acquire));
    let silence = shared.started.elapsed().saturating_sub(last_read);
    !shared.heartbeat.is_zero() && silence > shared.heartbeat * 2 + Duration::from_millis(500)
}
