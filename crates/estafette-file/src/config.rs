//! Settings of the transport.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use estafette_core::{Error, ErrorKind, Result, TransportUrl};

/// What `Ok` from `publish` means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FileDurability {
    /// The disk has the message: file and directory were flushed. In a URL: `durability=fsync`.
    #[default]
    Fsync,
    /// The operating system has it: safe from the end of any process, not from a power cut. In a URL: `durability=os`.
    Os,
}

/// Settings of a [`FileTransport`](crate::FileTransport).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileConfig {
    pub(crate) path: PathBuf,
    pub(crate) durability: FileDurability,
    pub(crate) body_bytes_max: usize,
    pub(crate) file_messages_max: usize,
    pub(crate) clock_skew: i64,
}

impl FileConfig {
    /// The default settings for the directory `path`, which is created when it does not exist.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            durability: FileDurability::default(),
            body_bytes_max: 64 << 20,
            file_messages_max: 500,
            clock_skew: 0,
        }
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What `Ok` from `publish` means; `Fsync` by default.
    #[must_use]
    pub fn durability(mut self, durability: FileDurability) -> Self {
        self.durability = durability;
        self
    }

    /// The largest body, in bytes; 64 MiB by default. In a URL: `body_max`.
    #[must_use]
    pub fn body_bytes_max(mut self, bytes: usize) -> Self {
        self.body_bytes_max = bytes;
        self
    }

    /// How many messages share a file at most, at least 1; 500 by default. The space of a file is free again when the last
    /// of them is settled. In a URL: `batch_max`.
    #[must_use]
    pub fn file_messages_max(mut self, messages: usize) -> Self {
        self.file_messages_max = messages.max(1);
        self
    }

    /// For tests: this process's clock shows `ahead` more than the true time.
    #[doc(hidden)]
    #[must_use]
    pub fn clock_ahead(mut self, ahead: Duration) -> Self {
        self.clock_skew = i64::try_from(ahead.as_micros()).unwrap_or(i64::MAX);
        self
    }

    /// For tests: this process's clock shows `behind` less than the true time.
    #[doc(hidden)]
    #[must_use]
    pub fn clock_behind(mut self, behind: Duration) -> Self {
        self.clock_skew = -i64::try_from(behind.as_micros()).unwrap_or(i64::MAX);
        self
    }

    /// The settings in a URL such as `file:./mail?durability=os&body_max=1048576&batch_max=100`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`] when the path is missing, or for an unknown setting or a value it cannot have.
    pub fn from_url(mut url: TransportUrl) -> Result<Self> {
        // `file:///var/mail` is what people write who know URLs.
        let address = url.address();
        let path = address.strip_prefix("//").filter(|rest| rest.starts_with('/')).unwrap_or(address);
        if path.is_empty() {
            let sentence = "file: needs a directory, such as file:./mail";
            return Err(Error::new(ErrorKind::InvalidInput, sentence));
        }
        let mut config = Self::new(path);
        if let Some(text) = url.take("durability") {
            config.durability = match text.as_str() {
                "fsync" => FileDurability::Fsync,
                "os" => FileDurability::Os,
                other => {
                    let sentence = format!("durability={other} is unknown; it is fsync or os");
                    return Err(Error::new(ErrorKind::InvalidInput, sentence));
                }
            };
        }
        if let Some(bytes) = url.take_parsed("body_max")? {
            config.body_bytes_max = bytes;
        }
        if let Some(messages) = url.take_parsed::<std::num::NonZeroUsize>("batch_max")? {
            config.file_messages_max = messages.get();
        }
        url.finish()?;
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(url: &str) -> Result<FileConfig> {
        FileConfig::from_url(url.parse().unwrap())
    }

    #[test]
    fn a_url_holds_the_path_and_the_settings() {
        let read = config("file:./mail?durability=os&body_max=10&batch_max=7").unwrap();
        let expected =
            FileConfig::new("./mail").durability(FileDurability::Os).body_bytes_max(10).file_messages_max(7);
        assert_eq!(read, expected);
        assert_eq!(config("file:///var/mail").unwrap().path(), Path::new("/var/mail"));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for bad in
            ["file:", "file:x?durability=yes", "file:x?body_max=big", "file:x?batch_max=0", "file:x?y=1"]
        {
            assert_eq!(config(bad).unwrap_err().kind(), ErrorKind::InvalidInput, "{bad}");
        }
    }
}
