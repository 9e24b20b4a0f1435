//! Settings of the transport.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use estafette_core::{Durability, Error, ErrorKind, Result, TransportUrl};

/// Settings of a [`SqlTransport`](crate::SqlTransport).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SqlConfig {
    /// The database's file; made when it does not exist. It may be the application's own database.
    pub path: PathBuf,
    /// When a stored message is safe: [`Durability::Disk`] flushes every commit, [`Durability::System`] leaves that to the
    /// operating system. In a URL: `durability=fsync` (the default) or `durability=os`.
    pub durability: Durability,
    /// The largest body, in bytes; 64 MiB by default. In a URL: `body_max`.
    pub body_bytes_max: usize,
    /// How long to wait for another process that is writing before it counts as unavailable; 30 seconds by default. In a
    /// URL: `busy_max`.
    pub busy_max: Duration,
}

impl SqlConfig {
    /// A SQLite database at `path`, with the default settings.
    #[must_use]
    pub fn sqlite(path: impl AsRef<Path>) -> Self {
        Self {
            path: path.as_ref().to_owned(),
            durability: Durability::Disk,
            body_bytes_max: 64 << 20,
            busy_max: Duration::from_secs(30),
        }
    }

    /// The settings in a URL such as `sqlite:./mail.db?durability=os`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`] for another scheme, a missing path, an unknown setting or a value that cannot be read.
    pub fn from_url(mut url: TransportUrl) -> Result<Self> {
        let invalid = |sentence: String| Err(Error::new(ErrorKind::InvalidInput, sentence));
        if url.scheme() != "sqlite" {
            return invalid(format!("{url} is not a database this program knows; it knows sqlite:PATH"));
        }
        // Three slashes, as other programs write it, are an absolute path; two would be a host.
        let address = url.address();
        let path = address.strip_prefix("//").unwrap_or(address);
        if path == ":memory:" {
            return invalid("sqlite::memory: would be lost with its connection; use memory: instead".into());
        }
        if path.is_empty() {
            return invalid(format!("{url} names no file; it looks like sqlite:./mail.db"));
        }
        let mut config = Self::sqlite(path);
        config.durability = match url.take("durability").as_deref() {
            None | Some("fsync") => Durability::Disk,
            Some("os") => Durability::System,
            Some(other) => return invalid(format!("durability={other} is neither fsync nor os")),
        };
        config.body_bytes_max = url.take_parsed("body_max")?.unwrap_or(config.body_bytes_max);
        config.busy_max = url.take_duration("busy_max")?.unwrap_or(config.busy_max);
        url.finish()?;
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(url: &str) -> Result<SqlConfig> {
        SqlConfig::from_url(url.parse()?)
    }

    #[test]
    fn a_url_names_a_file_and_settings() {
        let settings = config("sqlite:./mail.db?durability=os&body_max=10&busy_max=2s").unwrap();
        assert_eq!(settings.path, Path::new("./mail.db"));
        assert_eq!(settings.durability, Durability::System);
        assert_eq!((settings.body_bytes_max, settings.busy_max), (10, Duration::from_secs(2)));
        assert_eq!(config("sqlite:///var/mail.db").unwrap().path, Path::new("/var/mail.db"));
    }

    #[test]
    fn a_database_in_memory_is_refused_and_memory_recommended() {
        let error = config("sqlite::memory:").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.report().contains("use memory:"), "{}", error.report());
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for bad in
            ["sqlite:", "postgres://x", "sqlite:x?durability=maybe", "sqlite:x?body_max=big", "sqlite:x?y=1"]
        {
            assert_eq!(config(bad).unwrap_err().kind(), ErrorKind::InvalidInput, "{bad}");
        }
    }
}
