//! A connection's number.

use std::{fmt, str::FromStr};

use estafette_core::{Error, ErrorKind};

/// A user's connection: a positive number below 2^63 that no other connection ever has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(u64);

impl ConnectionId {
    /// The number.
    #[must_use]
    pub fn number(self) -> u64 {
        self.0
    }
}

impl TryFrom<u64> for ConnectionId {
    type Error = Error;

    fn try_from(number: u64) -> Result<Self, Error> {
        if (1..=i64::MAX as u64).contains(&number) {
            return Ok(Self(number));
        }
        Err(Error::new(ErrorKind::InvalidInput, "a connection id is a number from 1 to 2^63 - 1"))
    }
}

impl FromStr for ConnectionId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let number = text.parse::<u64>().map_err(|error| Error::new(ErrorKind::InvalidInput, error))?;
        Self::try_from(number)
    }
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
