//! Order by partition key: who takes messages looks first which keys are out.
//!
//! One receiver at a time, of all processes, takes its turn. It finds the keys of what is claimed, by anybody, and of what
//! waits for a retry, and takes only messages of other keys, each key once. Nothing is remembered beyond what is on disk, so
//! that any process can go on when another dies.

use std::{
    collections::{HashMap, HashSet},
    os::fd::{AsFd, OwnedFd},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use estafette_core::{Envelope, Result, Timestamp, wire};
use rustix::{
    fs::{self, FlockOperation, OFlags},
    io::Errno,
};

use crate::{
    claim::{self, Taken, Wanted},
    disk, error, journal, line,
    lines::ReadLines,
    name::{ClaimName, EntryName, FileId, Span},
    open::OpenQueue,
    queues,
};

/// How many lines are looked at in one turn: those beyond wait until some of the keys before them are free.
const LOOKED_AT_MAX: u32 = 20_000;

/// For how many lines keys are remembered.
const REMEMBERED_MAX: usize = 200_000;

/// The keys of a file's lines, by number.
type Keys = Arc<[Option<u32>]>;

/// The hash of a message's partition key. Two keys with the same one only wait for each other.
pub(crate) fn key_of(envelope: &Envelope) -> Option<u32> {
    let hash = envelope.partition_key.as_ref().map(|key| queues::fnv(key.as_bytes()));
    hash.map(|hash| u32::try_from((hash ^ (hash >> 32)) & u64::from(u32::MAX)).unwrap_or(0))
}

/// What a process needs to take part in a queue's order by key.
#[derive(Debug)]
pub(crate) struct KeyOrder {
    lock: Mutex<OwnedFd>,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    files: HashMap<FileId, Keys>,
    lines: usize,
}

/// The turn of one receiver; it ends when this is dropped.
struct Turn<'a> {
    lock: MutexGuard<'a, OwnedFd>,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        // A lock of ours can always be let go.
        fs::flock(self.lock.as_fd(), FlockOperation::Unlock).unwrap_or_default();
    }
}

impl KeyOrder {
    pub(crate) fn open(queue: &OpenQueue) -> Result<Self> {
        let path = format!("{}/order.lock", queue.queue.directory);
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC;
        let lock = fs::openat(&queue.store.queues, &*path, flags, disk::FILE_MODE)
            .map_err(|errno| error::io(&format!("opening {path}"), errno))?;
        Ok(Self { lock: Mutex::new(lock), known: Mutex::default() })
    }

    /// The turn, unless it is somebody else's. It takes a millisecond, so waiting for it is not worth a thread.
    fn turn(&self) -> Result<Option<Turn<'_>>> {
        let Ok(lock) = self.lock.try_lock() else { return Ok(None) };
        match fs::flock(lock.as_fd(), FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Turn { lock })),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(errno) => Err(error::io("taking a turn at a queue", errno)),
        }
    }

    /// Takes up to `max` lines whose keys are free, and hands each claim to `each`. False when it is somebody else's turn.
    pub(crate) fn take(
        &self,
        queue: &OpenQueue,
        max: usize,
        until: Timestamp,
        mut each: impl FnMut(Taken),
    ) -> Result<bool> {
        let Some(_turn) = self.turn()? else { return Ok(false) };
        // What is claimed first, and what came back second: a message on its way back is seen in one of the two places.
        let mut busy = self.claimed(queue)?;
        queue.catch_up()?;
        let now = queue.store.clock.now();
        let keyed: Vec<String> = queue.backlog().keyed().map(str::to_owned).collect();
        let (due, waiting): (Vec<_>, Vec<_>) =
            keyed.iter().filter_map(|name| EntryName::parse(name)).partition(|entry| entry.due <= now);
        for entry in waiting {
            // Deleted by hand, it must not hold anything back.
            if disk::exists(&queue.folders.new, &entry.to_string()).unwrap_or(true) {
                busy.extend(entry.key);
            } else {
                queue.backlog().remove(&entry.to_string());
            }
        }
        let mut picking = Picking { order: self, queue, busy, left: max, looked_at: 0, until };
        // A retried message was published before all that wait with its key.
        for entry in due {
            picking.pick(entry, &mut each)?;
        }
        let mut from = String::new();
        while picking.left > 0 && picking.looked_at < LOOKED_AT_MAX {
            let Some(name) = queue.backlog().at_or_after(&from).map(str::to_owned) else { break };
            if EntryName::due_of(&name).is_none_or(|due| due > now) {
                break;
            }
            match EntryName::parse(&name) {
                Some(entry) => picking.pick(entry, &mut each)?,
                None => {
                    queue.backlog().remove(&name);
                    queue.note_foreign(name.as_str().into());
                }
            }
            from = name + "\0";
        }
        Ok(true)
    }

    /// The keys of everything that is claimed and not settled.
    fn claimed(&self, queue: &OpenQueue) -> Result<HashSet<u32>> {
        let claimed = &queue.folders.claimed;
        let failed = |errno| error::io("looking at claimed messages", errno);
        let mut busy = HashSet::new();
        for name in disk::names(claimed).map_err(failed)? {
            let Some(claim) = ClaimName::parse(&name) else { continue };
            let span = claim.entry.span;
            let own = (claim.owner == queue.store.owner.id).then(|| queue.held().open_lines(claim.number));
            let open = match own.flatten() {
                Some(lines) => lines,
                None => {
                    let settled = journal::read(claimed, &claim.journal()).map_err(failed)?;
                    (span.first..span.first + span.count).filter(|line| !settled.contains(line)).collect()
                }
            };
            if let Some(keys) = self.keys(claimed, &name, claim.entry.file)? {
                busy.extend(open.iter().filter_map(|&line| keys.get(line as usize).copied().flatten()));
            }
        }
        Ok(busy)
    }

    /// The keys of a file's lines; none when it is not there under this name any more.
    fn keys(&self, folder: &OwnedFd, name: &str, file: FileId) -> Result<Option<Keys>> {
        // Nothing in here panics half way through a change.
        let lock = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(keys) = lock().files.get(&file) {
            return Ok(Some(Arc::clone(keys)));
        }
        let whole = Span { first: 0, count: u32::MAX, offset: 0 };
        let read = disk::open_file(folder, name).and_then(|file| ReadLines::read(file, whole, u32::MAX));
        let lines = match read {
            Ok(lines) => lines,
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(error::io("reading partition keys", errno)),
        };
        let key = |index| wire::decode(line::split(lines.get(index)).1).ok().as_ref().and_then(key_of);
        let keys: Keys = (0..lines.len()).map(key).collect();
        let mut known = lock();
        if known.lines + keys.len() > REMEMBERED_MAX {
            *known = Known::default();
        }
        known.lines += keys.len();
        known.files.insert(file, Arc::clone(&keys));
        Ok(Some(keys))
    }
}

/// One turn's choice.
struct Picking<'a> {
    order: &'a KeyOrder,
    queue: &'a OpenQueue,
    busy: HashSet<u32>,
    left: usize,
    looked_at: u32,
    until: Timestamp,
}

impl Picking<'_> {
    /// Takes the lines of an entry whose keys are free, run by run.
    fn pick(&mut self, entry: EntryName, each: &mut impl FnMut(Taken)) -> Result<()> {
        let Self { order, queue, .. } = *self;
        let mut name = entry.to_string();
        let keys = order.keys(&queue.folders.new, &name, entry.file)?;
        let Some(keys) = keys else {
            queue.backlog().remove(&name);
            return Ok(());
        };
        let mut rest = Some(entry);
        while let Some(entry) = rest.take().filter(|_| self.left > 0) {
            let Some((skip, count)) = self.free_run(&entry, &keys) else { break };
            let wanted = Wanted { skip, max: count };
            queue.backlog().remove(&name);
            let taken = claim::claim(&queue.store, &queue.folders, &entry, wanted, self.until)?;
            let Some(taken) = taken else { break };
            self.left = self.left.saturating_sub(taken.lines.len());
            let end = taken.name.entry.span.first + taken.name.entry.span.count;
            rest = taken.rest.iter().find(|rest| rest.span.first == end).cloned();
            name = rest.as_ref().map(ToString::to_string).unwrap_or_default();
            each(taken);
        }
        Ok(())
    }

    /// The first run of lines whose keys are free, which they are not from then on: how many lines come before, and how many
    /// these are.
    fn free_run(&mut self, entry: &EntryName, keys: &Keys) -> Option<(u32, u32)> {
        let mut run: Option<(u32, u32)> = None;
        for skip in 0..entry.span.count {
            self.looked_at += 1;
            let key = keys.get((entry.span.first + skip) as usize).copied().flatten();
            let is_free = key.is_none_or(|key| !self.busy.contains(&key));
            let has_room = run.is_none_or(|(_, count)| (count as usize) < self.left);
            match &mut run {
                _ if !has_room => break,
                Some(_) if !is_free => break,
                Some((_, count)) => *count += 1,
                None if is_free => run = Some((skip, 1)),
                None => continue,
            }
            self.busy.extend(key);
        }
        run
    }
}
