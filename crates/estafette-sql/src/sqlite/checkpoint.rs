//! Checkpoints: writing the log back into the database's file, mostly beside the writing instead of in its way.
//!
//! Left to itself, SQLite does it in the commit that makes the log long, and whoever publishes then waits for a thousand pages
//! and two flushes. Here the reading thread copies them while the writing thread goes on. Only what was added meanwhile is left
//! for the writing thread, between two transactions: the log begins anew when all of it is copied, which would never be the
//! case while both are at it. SQLite's own checkpoint stays as a net, at a length that is not reached otherwise.

use std::sync::{
    Arc,
    atomic::{AtomicU8, Ordering},
};

use tokio::sync::Notify;

use super::{SqliteStore, session::Session, thread::Mode};

/// How many pages this process writes between two checkpoints; a short log is read faster and overwritten in place.
const PAGES: u64 = 1000;

/// Where a round of the two threads stands.
mod state {
    /// The log is short.
    pub(super) const IDLE: u8 = 0;
    /// The reading thread was asked to copy.
    pub(super) const COPYING: u8 = 1;
    /// It did; the rest is the writing thread's.
    pub(super) const COPIED: u8 = 2;
}

/// What the two threads tell each other.
#[derive(Debug, Default)]
pub(crate) struct Checkpoints {
    state: AtomicU8,
    wanted: Notify,
}

/// The writing thread's part.
#[derive(Debug)]
pub(crate) struct Log {
    checkpoints: Arc<Checkpoints>,
    pages: u64,
}

impl Log {
    pub(crate) fn new(checkpoints: Arc<Checkpoints>) -> Self {
        Self { checkpoints, pages: 0 }
    }

    /// Does what is to be done between two transactions.
    pub(crate) fn written(&mut self, session: &mut Session<'_>) {
        self.pages += session.pages_written();
        match self.checkpoints.state.load(Ordering::Acquire) {
            state::IDLE if self.pages >= PAGES => {
                self.checkpoints.state.store(state::COPYING, Ordering::Release);
                self.checkpoints.wanted.notify_one();
            }
            state::COPIED => {
                copy(session);
                self.pages = 0;
                self.checkpoints.state.store(state::IDLE, Ordering::Release);
            }
            _ => {}
        }
    }
}

/// The reading thread's part. Runs until it is dropped.
pub(crate) async fn checkpoint(store: Arc<SqliteStore>) {
    loop {
        store.checkpoints.wanted.notified().await;
        let copied = store.reader.run(Mode::Read, |session| {
            copy(session);
            Ok(())
        });
        if copied.await.is_ok() {
            store.checkpoints.state.store(state::COPIED, Ordering::Release);
        }
    }
}

fn copy(session: &mut Session<'_>) {
    if let Err(error) = session.copy_log() {
        // Nothing is lost: the log holds it, and is tried again. A full disk is the usual reason.
        tracing::warn!(error = error.report(), "the log could not be written back into the database's file");
    }
}
