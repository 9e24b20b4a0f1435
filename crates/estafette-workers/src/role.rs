//! Which part this process plays: told by the name it was started under, which only its own process sees.
//!
//! The environment would not do: processes that a worker starts inherit it, and could be such programs themselves.

use std::{env, ffi::OsStr};

const WORKER: &str = "estafette-worker";
const GUARDIAN: &str = "estafette-guardian";

/// The part of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Starts and watches the others.
    Supervisor,
    /// Does the application's work.
    Worker,
    /// Ends what is left when the supervisor is killed.
    Guardian,
}

impl Role {
    /// This process's.
    pub(crate) fn of_this_process() -> Self {
        let name = env::args_os().next();
        match name.as_deref().and_then(OsStr::to_str) {
            Some(WORKER) => Self::Worker,
            Some(GUARDIAN) => Self::Guardian,
            _ => Self::Supervisor,
        }
    }

    /// The name a process of this part is started under.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Supervisor => "estafette-supervisor",
            Self::Worker => WORKER,
            Self::Guardian => GUARDIAN,
        }
    }
}
