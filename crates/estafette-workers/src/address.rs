//! Who takes part in a group, and whom a message is for.

use std::{fmt, str::FromStr, sync::Arc};

use estafette_core::{Error, ErrorKind, Result};

/// The longest name of a group or of a named process, in bytes: the path of a socket must fit into 107.
pub const NAME_BYTES_MAX: usize = 32;

/// One participant of a group.
///
/// Displayed and parsed as `0`, `scheduler`, `supervisor` or `outside-4711`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Address {
    /// A numbered worker.
    Worker(u32),
    /// A named process beside the numbered workers.
    Process(Arc<str>),
    /// The process that starts and watches the others.
    Supervisor,
    /// A process that is no part of the group, by its process id; nobody can send to it, only answer it.
    Outside(u32),
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Worker(id) => write!(formatter, "{id}"),
            Self::Process(name) => formatter.write_str(name),
            Self::Supervisor => formatter.write_str("supervisor"),
            Self::Outside(pid) => write!(formatter, "outside-{pid}"),
        }
    }
}

impl FromStr for Address {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if text == "supervisor" {
            return Ok(Self::Supervisor);
        }
        if let Some(pid) = text.strip_prefix("outside-") {
            return match pid.parse() {
                Ok(pid) => Ok(Self::Outside(pid)),
                Err(source) => Err(Error::new(ErrorKind::InvalidInput, source)),
            };
        }
        if text.starts_with(|first: char| first.is_ascii_digit()) {
            return match text.parse() {
                Ok(id) => Ok(Self::Worker(id)),
                Err(source) => Err(Error::new(ErrorKind::InvalidInput, source)),
            };
        }
        check_name(text, "process")?;
        Ok(Self::Process(text.into()))
    }
}

/// Checks a name that becomes part of a path: 1 to 32 of `a-z A-Z 0-9 _ -`.
pub(crate) fn check_name(name: &str, what: &str) -> Result<()> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(allowed) {
        return Ok(());
    }
    let sentence = format!("{what} name {name:?} is not 1 to {NAME_BYTES_MAX} letters, digits, `_` or `-`");
    Err(Error::new(ErrorKind::InvalidInput, sentence))
}

/// Checks the name of a process beside the workers, which must not look like another participant's address.
pub(crate) fn check_process_name(name: &str) -> Result<()> {
    match name.parse()? {
        Address::Process(_) => Ok(()),
        other => {
            let sentence = format!("{name:?} cannot name a process: it is the address of {other:?}");
            Err(Error::new(ErrorKind::InvalidInput, sentence))
        }
    }
}

/// Whom a message is for. A list of worker ids may name an id once only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum To<'a> {
    /// Every numbered worker, the sender included when it is one.
    All,
    /// Every numbered worker but the sender.
    Others,
    /// The worker of this id.
    One(u32),
    /// The workers of these ids.
    Many(&'a [u32]),
    /// One worker, in turns; not the sender, unless it is the only one.
    Any,
    /// The named process.
    Process(&'a str),
    /// The supervisor.
    Supervisor,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_survives_display_and_parse() {
        for address in [
            Address::Worker(0),
            Address::Worker(31),
            Address::Supervisor,
            Address::Process("scheduler".into()),
        ] {
            assert_eq!(address.to_string().parse::<Address>().unwrap(), address);
        }
        assert_eq!("outside-7".parse::<Address>().unwrap(), Address::Outside(7));
    }

    #[test]
    fn names_that_could_leave_the_directory_are_refused() {
        for bad in ["", "..", "a/b", "a b", "é", &"a".repeat(33), "outside-x", "1a"] {
            assert!(bad.parse::<Address>().is_err(), "{bad}");
        }
        assert!(check_process_name("supervisor").is_err());
        assert!(check_process_name("3").is_err());
        assert!(check_process_name("metrics").is_ok());
    }
}
