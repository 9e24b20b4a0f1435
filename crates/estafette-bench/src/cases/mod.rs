//! The list of jobs, a module per transport.

pub mod amqp;
pub mod file;
pub mod gateway;
pub mod gearman;
pub mod memory;
pub mod outbox;
pub mod servers;
pub mod sqlite;
pub mod workers;

/// How many messages a job handles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// Enough for figures to be quoted.
    Full,
    /// A tenth, to see that everything runs.
    Quick,
}

impl Size {
    /// `messages`, or a tenth of them.
    #[must_use]
    pub fn of(self, messages: u32) -> u32 {
        match self {
            Self::Full => messages,
            Self::Quick => messages / 10,
        }
    }
}
