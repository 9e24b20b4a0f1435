//! Noticing what other processes wrote, while receivers of this one wait.
//!
//! The kernel says when somebody writes to the log; the commit becomes visible a little later, when it is flushed, so the
//! database's version is then asked for at growing intervals. Without the kernel's help the intervals just grow less far.

use std::{path::Path, sync::Arc, time::Duration};

use tokio::time::sleep;

use super::{SqliteStore, writes::Writes};
use crate::wake::Wake;

/// The first interval after something was written, and the longest with and without the kernel's help.
const INTERVAL_MIN: Duration = Duration::from_millis(1);
const INTERVAL_MAX: Duration = Duration::from_millis(500);
const INTERVAL_MAX_ALONE: Duration = Duration::from_millis(50);

/// Wakes receivers when another process has committed something. Runs until it is dropped.
pub(crate) async fn watch(store: Arc<SqliteStore>, wake: Arc<Wake>, log: Box<Path>) {
    let mut writes = Writes::to(&log);
    if let Err(error) = &writes {
        tracing::debug!(%error, "writes of other processes are polled for");
    }
    let longest = if writes.is_ok() { INTERVAL_MAX } else { INTERVAL_MAX_ALONE };
    let mut seen = None;
    let mut interval = INTERVAL_MIN;
    loop {
        if !wake.is_awaited() {
            wake.changed.notified().await;
            interval = INTERVAL_MIN;
            continue;
        }
        // An error here is soon the receivers' own.
        if let Ok(version) = store.data_version().await
            && seen.replace(version) != Some(version)
        {
            wake.all();
            interval = INTERVAL_MIN;
        }
        // However busy the log is, it is not looked at more often than this.
        sleep(INTERVAL_MIN).await;
        tokio::select! {
            () = next(&mut writes) => interval = INTERVAL_MIN,
            () = wake.changed.notified() => interval = INTERVAL_MIN,
            () = sleep(interval) => interval = (interval * 2).min(longest),
        }
    }
}

/// Waits for the next write, for ever where they cannot be watched.
async fn next(writes: &mut std::io::Result<Writes>) {
    match writes {
        Ok(writes) => writes.next().await,
        Err(_) => std::future::pending().await,
    }
}
