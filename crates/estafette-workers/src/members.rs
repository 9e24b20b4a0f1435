//! Who belongs to a group at the moment, as the supervisor tells it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::Address;

/// The actions of the supervision itself begin with this; listeners of applications choose other names.
pub(crate) mod actions {
    /// Worker to supervisor: I listen now; the reply is the [`Members`](super::Members).
    pub(crate) const JOIN: &str = "estafette.join";
    /// Supervisor to workers: the members changed.
    pub(crate) const MEMBERS: &str = "estafette.members";
    /// Anybody to the supervisor: the reply is the [`Members`](super::Members).
    pub(crate) const LIST: &str = "estafette.members.list";
    /// Worker to supervisor: I am alive.
    pub(crate) const HEARTBEAT: &str = "estafette.heartbeat";
    /// Anybody to a worker: the reply is its [`Counts`](crate::Counts).
    pub(crate) const COUNTS: &str = "estafette.counts";
    /// Anybody to the supervisor: the reply is the [`GroupStatus`](crate::GroupStatus).
    pub(crate) const STATUS: &str = "estafette.status";
    /// Anybody to the supervisor: replace the workers one by one; the reply comes when it is done.
    pub(crate) const RELOAD: &str = "estafette.reload";
    /// Anybody to the supervisor: stop the group; the reply comes at once.
    pub(crate) const STOP: &str = "estafette.stop";
    /// Anybody to the supervisor: run as many workers as the data says.
    pub(crate) const SCALE: &str = "estafette.scale";
}

/// Whether a participant can be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Presence {
    /// It runs and listens, as far as the supervisor was told.
    Up,
    /// It is being started or replaced: worth waiting for.
    Starting,
    /// It died and waits for its next start: not worth waiting for.
    Down,
}

/// The workers, by id, and the named processes of a group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Members {
    /// Grows with every change, so that old news is recognized.
    pub(crate) version: u64,
    pub(crate) workers: Vec<Presence>,
    pub(crate) processes: BTreeMap<String, Presence>,
}

impl Members {
    /// How many workers there are, running or not.
    pub(crate) fn count(&self) -> u32 {
        u32::try_from(self.workers.len()).unwrap_or(u32::MAX)
    }

    /// The presence of `address`; `None` when the group has no such member.
    pub(crate) fn presence(&self, address: &Address) -> Option<Presence> {
        match address {
            Address::Worker(id) => self.workers.get(usize::try_from(*id).ok()?).copied(),
            Address::Process(name) => self.processes.get(&**name).copied(),
            Address::Supervisor => Some(Presence::Up),
            Address::Outside(_) => None,
        }
    }
}
