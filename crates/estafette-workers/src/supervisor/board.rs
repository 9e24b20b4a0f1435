//! What the supervisor knows about its processes, and telling it to them.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rustix::process::{Pid, Signal};
use tokio::time::Instant;

use crate::{
    Address, Presence, To, Worker,
    endpoint::Endpoint,
    members::{Members, actions},
    status::MemberStatus,
};

/// What is known about each process.
pub(crate) struct Board {
    endpoint: Arc<Endpoint>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    version: u64,
    /// How many starts there were, of all processes together: the incarnation of the last one.
    starts: u64,
    /// How many numbered workers there are to be; those above are on their way out.
    count: u32,
    entries: BTreeMap<Address, Entry>,
}

/// What is known about one process.
#[derive(Clone, Debug)]
struct Entry {
    presence: Presence,
    /// It has said that it listens.
    joined: bool,
    pid: Option<Pid>,
    incarnation: u64,
    starts: u64,
    started: Instant,
    last_sign: Instant,
}

impl Board {
    pub(super) fn new(endpoint: Arc<Endpoint>) -> Self {
        Self { endpoint, state: Mutex::default() }
    }

    /// A process that is to be kept from now on.
    pub(super) fn add(&self, address: &Address) {
        let now = Instant::now();
        let entry = Entry {
            presence: Presence::Starting,
            joined: false,
            pid: None,
            incarnation: 0,
            starts: 0,
            started: now,
            last_sign: now,
        };
        // One of the same number may still be on its way out: its keeper removes it by its own.
        self.lock().entries.insert(address.clone(), entry);
    }

    /// How many numbered workers there are to be.
    pub(super) fn set_count(&self, count: u32) {
        self.change(|state| state.count = count);
    }

    /// The number of the next start.
    pub(super) fn next_incarnation(&self) -> u64 {
        let mut state = self.lock();
        state.starts += 1;
        state.starts
    }

    /// How many numbered workers there are to be.
    pub(super) fn count(&self) -> u32 {
        self.lock().count
    }

    /// A process was started.
    pub(super) fn started(&self, address: &Address, incarnation: u64, pid: Pid) {
        let now = Instant::now();
        self.change_entry(address, |entry| {
            *entry = Entry {
                presence: Presence::Starting,
                joined: false,
                pid: Some(pid),
                incarnation,
                starts: entry.starts + 1,
                started: now,
                last_sign: now,
            };
        });
    }

    /// A process says that it listens; whether it is the one that was started last.
    pub(super) fn joined(&self, address: &Address, incarnation: u64) -> bool {
        let mut is_current = false;
        self.change_entry(address, |entry| {
            is_current = entry.incarnation == incarnation && entry.pid.is_some();
            if is_current {
                entry.presence = Presence::Up;
                entry.joined = true;
                entry.last_sign = Instant::now();
            }
        });
        is_current
    }

    /// A process gave a sign of life.
    pub(super) fn beat(&self, address: &Address, incarnation: u64) {
        let mut state = self.lock();
        if let Some(entry) = state.entries.get_mut(address)
            && entry.incarnation == incarnation
        {
            entry.joined = true;
            entry.last_sign = Instant::now();
        }
    }

    /// Since when a process has given no sign of life; `None` when it never gave one.
    pub(super) fn silent_for(&self, address: &Address) -> Option<Duration> {
        let state = self.lock();
        let entry = state.entries.get(address)?;
        entry.joined.then(|| entry.last_sign.elapsed())
    }

    /// A program that says nothing has been running for a while.
    pub(super) fn runs(&self, address: &Address) {
        self.change_entry(address, |entry| {
            if entry.pid.is_some() {
                entry.presence = Presence::Up;
            }
        });
    }

    /// Whether a process is up.
    pub(super) fn is_up(&self, address: &Address) -> bool {
        self.lock().entries.get(address).is_some_and(|entry| entry.presence == Presence::Up)
    }

    /// A process ended and is started again at once, or later.
    pub(super) fn ended(&self, address: &Address, presence: Presence) {
        self.change_entry(address, |entry| {
            entry.presence = presence;
            entry.joined = false;
            entry.pid = None;
        });
    }

    /// A process ended for good.
    pub(super) fn remove(&self, address: &Address) {
        self.change(|state| {
            state.entries.remove(address);
        });
    }

    /// Kills every process with what it has started.
    pub(super) fn kill_all(&self) {
        for pid in self.lock().entries.values().filter_map(|entry| entry.pid) {
            if let Err(error) = rustix::process::kill_process_group(pid, Signal::KILL) {
                tracing::trace!(%error, "a process ended in this moment");
            }
        }
    }

    /// The state of every process, workers by id, then named ones.
    pub(super) fn status(&self) -> Vec<MemberStatus> {
        let state = self.lock();
        let status = |(address, entry): (&Address, &Entry)| {
            let pid = entry.pid.and_then(|pid| u32::try_from(pid.as_raw_nonzero().get()).ok());
            MemberStatus {
                address: address.to_string(),
                presence: entry.presence,
                pid,
                incarnation: entry.incarnation,
                uptime_seconds: pid.map_or(0, |_pid| entry.started.elapsed().as_secs()),
                restarts: entry.starts.saturating_sub(1),
                memory_bytes: pid.and_then(memory_bytes),
                counts: None,
            }
        };
        state.entries.iter().map(status).collect()
    }

    fn change_entry(&self, address: &Address, change: impl FnOnce(&mut Entry)) {
        self.change(|state| {
            if let Some(entry) = state.entries.get_mut(address) {
                change(entry);
            }
        });
    }

    /// Changes what is known, and tells everybody when that changes who can be reached.
    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.lock();
        change(&mut state);
        let members = state.members();
        let told = self.endpoint.members.borrow().clone();
        if members.workers == told.workers && members.processes == told.processes {
            return;
        }
        state.version += 1;
        let members = Members { version: state.version, ..members };
        let joined: Vec<Address> = state
            .entries
            .iter()
            .filter(|(_, entry)| entry.joined && entry.presence == Presence::Up)
            .map(|(address, _)| address.clone())
            .collect();
        drop(state);
        self.endpoint.set_members(members.clone());
        for address in joined {
            self.tell(address, members.clone());
        }
    }

    /// Tells one process who can be reached. Each in a task of its own: one that reads nothing must not delay the others.
    fn tell(&self, address: Address, members: Members) {
        let worker = Worker::of(Arc::clone(&self.endpoint));
        self.endpoint.spawn(async move {
            let to = match &address {
                Address::Worker(id) => To::One(*id),
                Address::Process(name) => To::Process(name),
                _ => return,
            };
            if let Err(error) = worker.send(actions::MEMBERS, &members, to).await {
                tracing::debug!(%address, error = %error.report(), "a process was not told who can be reached");
            }
        });
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn members(&self) -> Members {
        let presence =
            |address: Address| self.entries.get(&address).map_or(Presence::Starting, |entry| entry.presence);
        let processes = self.entries.iter().filter_map(|(address, entry)| match address {
            Address::Process(name) => Some((name.to_string(), entry.presence)),
            _ => None,
        });
        Members {
            version: self.version,
            workers: (0..self.count).map(|id| presence(Address::Worker(id))).collect(),
            processes: processes.collect(),
        }
    }
}

/// The resident memory of a process, as Linux tells it.
pub(super) fn memory_bytes(pid: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let pages: u64 = text.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * u64::try_from(rustix::param::page_size()).ok()?)
}
