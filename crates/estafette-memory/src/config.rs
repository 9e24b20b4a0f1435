//! Settings of the transport.

use estafette_core::{Error, ErrorKind, Result, TransportUrl};

/// Settings of a [`MemoryTransport`](crate::MemoryTransport).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryConfig {
    /// The largest body, in bytes; 64 MiB by default. In a URL: `body_max`.
    pub body_bytes_max: usize,
    /// How many messages a queue holds at most, dead letters apart; publishing more is `Full`. 10 million by default. In a
    /// URL: `messages_max`.
    pub messages_max: usize,
}

impl Default for MemoryConfig {
    fn default() -> Self {
        Self { body_bytes_max: 64 << 20, messages_max: 10_000_000 }
    }
}

impl MemoryConfig {
    /// The settings in a URL such as `memory:?body_max=1048576`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`] for an address, an unknown setting or a value that is no number.
    pub fn from_url(mut url: TransportUrl) -> Result<Self> {
        if !url.address().is_empty() {
            let sentence =
                format!("{url} names a place; memory: has none, its messages live in this process");
            return Err(Error::new(ErrorKind::InvalidInput, sentence));
        }
        let default = Self::default();
        let config = Self {
            body_bytes_max: url.take_parsed("body_max")?.unwrap_or(default.body_bytes_max),
            messages_max: url.take_parsed("messages_max")?.unwrap_or(default.messages_max),
        };
        url.finish()?;
        Ok(config)
    }
}
