//! What a supervisor tells about its group.

use serde::{Deserialize, Serialize};

use crate::{Counts, Presence};

/// A running group, as its supervisor sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct GroupStatus {
    /// The name of the group.
    pub group: String,
    /// The process id of the supervisor.
    pub pid: u32,
    /// For how many seconds the supervisor has been running.
    pub uptime_seconds: u64,
    /// The resident memory of the supervisor in bytes, when the system tells it.
    pub memory_bytes: Option<u64>,
    /// The workers by id, then the named processes.
    pub members: Vec<MemberStatus>,
}

/// One process of a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct MemberStatus {
    /// Its id or name.
    pub address: String,
    /// Whether it can be reached.
    pub presence: Presence,
    /// Its process id, when it runs.
    pub pid: Option<u32>,
    /// Which start of the group's processes this one is, counted from 1.
    pub incarnation: u64,
    /// For how many seconds it has been running; zero when it does not.
    pub uptime_seconds: u64,
    /// How often it was started again, for whatever reason.
    pub restarts: u64,
    /// Its resident memory in bytes, when it runs and the system tells it.
    pub memory_bytes: Option<u64>,
    /// What it has counted, when it answers.
    pub counts: Option<Counts>,
}
