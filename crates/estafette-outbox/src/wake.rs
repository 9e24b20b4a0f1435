//! What makes a relay look before its time.

use std::sync::Arc;

use tokio::sync::Notify;

/// Rung after a commit, heard by the relay of the same process. Clones are the same bell.
#[derive(Clone, Debug, Default)]
pub struct Wake(Arc<Notify>);

impl Wake {
    /// Makes the relay look now, or as soon as it is done with what it does.
    pub fn notify(&self) {
        self.0.notify_one();
    }

    pub(crate) async fn heard(&self) {
        self.0.notified().await;
    }
}
