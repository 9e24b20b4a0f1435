//! What workers print: passed on line by line with the worker's address before each, and the last of it kept.

use std::{
    collections::VecDeque,
    io::{self, Write},
    sync::{Arc, Mutex, PoisonError},
};

use bytes::BytesMut;
use estafette_core::Result;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    sync::{mpsc, oneshot},
};

use crate::{Address, builder::Output, error::system};

/// A longer line is passed on in pieces.
const LINE_BYTES_MAX: usize = 8 << 10;

/// How many lines wait for a slow terminal before workers wait too.
const LINES_WAITING_MAX: usize = 1024;

/// How many of a worker's lines are kept for the error when it dies too often.
const LINES_KEPT_MAX: usize = 20;

/// Which of its two outputs a worker wrote to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stream {
    Standard,
    Error,
}

/// A line with its prefix and its end, and where it belongs.
type Line = (Stream, Vec<u8>);

/// The outputs of the supervisor, written by a thread: a terminal that is not read must not stop the supervision.
pub(crate) struct Console {
    lines: Mutex<Option<mpsc::Sender<Line>>>,
    written: Mutex<Option<oneshot::Receiver<()>>>,
    output: Output,
}

impl Console {
    /// # Errors
    ///
    /// When no thread can be started.
    pub(super) fn start(output: Output) -> Result<Self> {
        let (lines, mut waiting) = mpsc::channel::<Line>(LINES_WAITING_MAX);
        let (done, written) = oneshot::channel();
        let write_all = move || {
            while let Some((stream, line)) = waiting.blocking_recv() {
                let outcome = match stream {
                    Stream::Standard => write(io::stdout().lock(), &line),
                    Stream::Error => write(io::stderr().lock(), &line),
                };
                if let Err(error) = outcome {
                    tracing::debug!(%error, "a line of a worker could not be passed on");
                }
            }
            if done.send(()).is_err() {
                tracing::trace!("nobody waits for the output, as when the supervisor failed early");
            }
        };
        std::thread::Builder::new()
            .name("worker-output".into())
            .spawn(write_all)
            .map_err(|error| system("starting the thread that passes output on", error))?;
        Ok(Self { lines: Mutex::new(Some(lines)), written: Mutex::new(Some(written)), output })
    }

    /// Passes on what comes from `source` until it ends, and keeps the last lines in `kept`.
    pub(super) async fn pass_on(
        &self,
        address: Address,
        stream: Stream,
        mut source: impl AsyncRead + Unpin,
        kept: Arc<LastLines>,
    ) {
        let mut buffer = BytesMut::new();
        loop {
            buffer.reserve(LINE_BYTES_MAX);
            let read = source.read_buf(&mut buffer).await;
            while let Some(line) = take_line(&mut buffer) {
                self.line(&address, stream, &line, &kept).await;
            }
            if matches!(read, Ok(0) | Err(_)) {
                break;
            }
        }
        if !buffer.is_empty() {
            self.line(&address, stream, &buffer, &kept).await;
        }
    }

    async fn line(&self, address: &Address, stream: Stream, line: &[u8], kept: &LastLines) {
        kept.push(line);
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if self.output == Output::Prefixed
            && let Some(lines) = lines
        {
            let text = [format!("[{address}] ").as_bytes(), line, b"\n"].concat();
            if lines.send((stream, text)).await.is_err() {
                tracing::debug!("a line of a worker came after the end");
            }
        }
    }

    /// Waits until everything is written.
    pub(super) async fn close(&self) {
        drop(self.lines.lock().unwrap_or_else(PoisonError::into_inner).take());
        let written = self.written.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(written) = written {
            let limit = std::time::Duration::from_secs(2);
            if tokio::time::timeout(limit, written).await.is_err() {
                tracing::warn!("the last lines of workers were not taken");
            }
        }
    }
}

fn write(mut target: impl Write, line: &[u8]) -> io::Result<()> {
    target.write_all(line)?;
    target.flush()
}

/// The next line without its end, or a piece of one that is too long.
fn take_line(buffer: &mut BytesMut) -> Option<BytesMut> {
    let end = buffer.iter().position(|&byte| byte == b'\n');
    match end {
        Some(end) if end <= LINE_BYTES_MAX => {
            let mut line = buffer.split_to(end + 1);
            line.truncate(end);
            Some(line)
        }
        _ if buffer.len() >= LINE_BYTES_MAX => Some(buffer.split_to(LINE_BYTES_MAX)),
        _ => None,
    }
}

/// The last lines a process printed.
#[derive(Debug, Default)]
pub(super) struct LastLines(Mutex<VecDeque<String>>);

impl LastLines {
    fn push(&self, line: &[u8]) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == LINES_KEPT_MAX {
            lines.pop_front();
        }
        lines.push_back(String::from_utf8_lossy(line).into_owned());
    }

    /// The lines, oldest first, joined.
    pub(super) fn text(&self) -> String {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().map(String::as_str).collect::<Vec<_>>().join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_cut_at_their_ends_and_long_ones_at_the_limit() {
        let mut buffer = BytesMut::from(&b"one\n\ntwo"[..]);
        assert_eq!(take_line(&mut buffer).unwrap(), b"one"[..]);
        assert_eq!(take_line(&mut buffer).unwrap(), b""[..]);
        assert_eq!(take_line(&mut buffer), None);
        assert_eq!(buffer, b"two"[..]);
        let mut long = BytesMut::from(&vec![b'x'; LINE_BYTES_MAX + 1][..]);
        assert_eq!(take_line(&mut long).unwrap().len(), LINE_BYTES_MAX);
        assert_eq!(take_line(&mut long), None);
    }

    #[test]
    fn only_the_last_lines_are_kept() {
        let kept = LastLines::default();
        for number in 0..30 {
            kept.push(number.to_string().as_bytes());
        }
        assert!(kept.text().starts_with("10\n"));
        assert!(kept.text().ends_with("\n29"));
    }
}
