//! What the environment says: to a worker who it is, to everybody where groups are.

use std::{env, ffi::OsString, path::PathBuf};

use estafette_core::{Error, ErrorKind, Result};

use crate::{Address, directory::Directory, error::invalid, settings::Limits, wire::Wire};

const ADDRESS: &str = "ESTAFETTE_WORKER_ADDRESS";
const ID: &str = "ESTAFETTE_WORKER_ID";
const COUNT: &str = "ESTAFETTE_WORKER_COUNT";
const INCARNATION: &str = "ESTAFETTE_WORKER_INCARNATION";
const GROUP: &str = "ESTAFETTE_WORKER_GROUP";
const DIRECTORY: &str = "ESTAFETTE_WORKER_DIRECTORY";
const SOCKET: &str = "ESTAFETTE_WORKER_SOCKET";
const LINES: &str = "ESTAFETTE_WORKER_LINES";
const SUPERVISOR: &str = "ESTAFETTE_WORKER_SUPERVISOR";
const LIMITS: &str = "ESTAFETTE_WORKER_LIMITS";
const HEARTBEAT: &str = "ESTAFETTE_WORKER_HEARTBEAT_MS";

/// What a process of a group is told when it is started.
#[derive(Clone, Debug)]
pub(crate) struct Assignment {
    pub(crate) address: Address,
    /// How many workers there are at the start; the supervisor tells changes.
    pub(crate) count: u32,
    pub(crate) incarnation: u64,
    pub(crate) group: String,
    pub(crate) directory: Directory,
    /// The process id of the supervisor.
    pub(crate) supervisor: u32,
    pub(crate) limits: Limits,
    /// How often the supervisor wants to hear from the process, if at all.
    pub(crate) heartbeat: Option<std::time::Duration>,
}

impl Assignment {
    /// This process's, when it was started by a supervisor.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`] when the variables contradict themselves; [`ErrorKind::Denied`] when the directory
    /// they name is not private.
    pub(crate) fn of_this_process() -> Result<Option<Self>> {
        let Some(address) = text(ADDRESS)? else { return Ok(None) };
        let heartbeat = match text(HEARTBEAT)? {
            Some(milliseconds) => Some(std::time::Duration::from_millis(number(HEARTBEAT, &milliseconds)?)),
            None => None,
        };
        let limits = required(LIMITS)?;
        let limits =
            serde_json::from_str(&limits).map_err(|source| Error::new(ErrorKind::InvalidInput, source))?;
        Ok(Some(Self {
            address: address.parse()?,
            count: number(COUNT, &required(COUNT)?)?,
            incarnation: number(INCARNATION, &required(INCARNATION)?)?,
            group: required(GROUP)?,
            directory: Directory::existing(required(DIRECTORY)?.into())?,
            supervisor: number(SUPERVISOR, &required(SUPERVISOR)?)?,
            limits,
            heartbeat,
        }))
    }

    /// The variables that tell it to a process.
    pub(crate) fn variables(&self) -> Vec<(&'static str, OsString)> {
        let mut variables: Vec<(&str, OsString)> = vec![
            (ADDRESS, self.address.to_string().into()),
            (COUNT, self.count.to_string().into()),
            (INCARNATION, self.incarnation.to_string().into()),
            (GROUP, self.group.clone().into()),
            (DIRECTORY, self.directory.path().into()),
            (SOCKET, self.directory.socket(&self.address, Wire::Frames).into()),
            (LINES, self.directory.socket(&self.address, Wire::Lines).into()),
            (SUPERVISOR, self.supervisor.to_string().into()),
            (LIMITS, serde_json::to_string(&self.limits).unwrap_or_default().into()),
        ];
        if let Address::Worker(id) = self.address {
            variables.push((ID, id.to_string().into()));
        }
        if let Some(heartbeat) = self.heartbeat {
            variables.push((HEARTBEAT, heartbeat.as_millis().to_string().into()));
        }
        variables
    }
}

/// Where the directories of this user's groups are: `$XDG_RUNTIME_DIR/estafette`, or `/tmp/estafette-UID` without it.
pub(crate) fn runtime_root() -> PathBuf {
    match env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from) {
        Some(directory) if directory.is_absolute() => directory.join("estafette"),
        _ => PathBuf::from(format!("/tmp/estafette-{}", rustix::process::geteuid().as_raw())),
    }
}

fn required(name: &str) -> Result<String> {
    text(name)?.ok_or_else(|| invalid(format!("{name} is not set, though {ADDRESS} is")))
}

fn text(name: &str) -> Result<Option<String>> {
    match env::var(name) {
        Ok(text) => Ok(Some(text)),
        Err(env::VarError::NotPresent) => Ok(None),
        Err(source) => Err(Error::new(ErrorKind::InvalidInput, source)),
    }
}

fn number<T: std::str::FromStr>(name: &str, text: &str) -> Result<T> {
    text.parse().map_err(|_not_a_number| invalid(format!("{name} is {text:?}, which is no number in range")))
}
