//! Which queues there are, and which of them take a topic.
//!
//! A queue is a directory with a small description, `queue.json`. Every process keeps all descriptions in memory and looks at
//! one file to know whether they are still right: `changes`, to which the name of a queue's directory is appended whenever
//! something about that queue changed. One look costs a microsecond, however many queues there are.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use estafette_core::{Error, Lifetime, Pattern, QueueName, Result, Topic};
use rustix::{
    fs::{self, AtFlags},
    io::Errno,
};
use serde::{Deserialize, Serialize};

use crate::{disk, error, name::OwnerId, store::Store};

/// How many topics' queues are remembered; beyond that the memory is emptied and fills again.
const REMEMBERED_TOPICS_MAX: usize = 10_000;

pub(crate) const DESCRIPTION: &str = "queue.json";
const CHANGES: &str = "changes";

/// What is known about a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Queue {
    pub(crate) name: QueueName,
    /// Its directory in `queues/`.
    pub(crate) directory: Arc<str>,
    /// Sorted.
    pub(crate) patterns: Vec<Pattern>,
    pub(crate) lifetime: Lifetime,
    /// Who made it, when it is temporary.
    pub(crate) owner: Option<OwnerId>,
    /// Tells it from one of the same name that was deleted.
    pub(crate) incarnation: String,
}

/// The queues that take a message.
pub(crate) type Queues = Arc<[Arc<Queue>]>;

/// `queue.json`.
#[derive(Serialize, Deserialize)]
struct Description {
    name: String,
    patterns: Vec<String>,
    lifetime: StoredLifetime,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    owner: Option<String>,
    #[serde(default)]
    incarnation: String,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum StoredLifetime {
    Durable,
    Temporary,
}

impl Queue {
    pub(crate) fn describe(&self) -> Vec<u8> {
        let description = Description {
            name: self.name.to_string(),
            patterns: self.patterns.iter().map(ToString::to_string).collect(),
            lifetime: match self.lifetime {
                Lifetime::Durable => StoredLifetime::Durable,
                Lifetime::Temporary => StoredLifetime::Temporary,
            },
            owner: self.owner.map(|owner| owner.to_string()),
            incarnation: self.incarnation.clone(),
        };
        // Plain texts: writing them to memory cannot fail.
        let mut bytes = serde_json::to_vec_pretty(&description).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }

    /// Reads a queue's description; none when there is no such queue.
    pub(crate) fn read(store: &Store, directory: &str) -> Result<Option<Self>> {
        let path = format!("{directory}/{DESCRIPTION}");
        let bytes = match disk::read_file(&store.queues, &path) {
            Ok(bytes) => bytes,
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
            Err(errno) => return Err(error::io(&format!("reading {path}"), errno)),
        };
        let corrupt = |problem: String| error::corrupt(&store.path_of(&["queues", &path]), problem);
        let stored: Description =
            serde_json::from_slice(&bytes).map_err(|source| corrupt(source.to_string()))?;
        let patterns = stored.patterns.iter().map(|text| text.parse()).collect::<Result<Vec<Pattern>>>();
        Ok(Some(Self {
            name: stored.name.parse().map_err(|source: Error| corrupt(source.report()))?,
            directory: directory.into(),
            patterns: patterns.map_err(|source| corrupt(source.report()))?,
            lifetime: match stored.lifetime {
                StoredLifetime::Durable => Lifetime::Durable,
                StoredLifetime::Temporary => Lifetime::Temporary,
            },
            owner: stored.owner.and_then(|text| OwnerId::parse(&text)),
            incarnation: stored.incarnation,
        }))
    }
}

/// The directory of a queue of this name: the name, with what a file system may not like as `%` and two hexadecimal digits.
pub(crate) fn directory_of(name: &QueueName) -> String {
    use std::fmt::Write as _;
    let mut directory = String::with_capacity(name.as_str().len());
    for character in name.as_str().chars() {
        let is_special = matches!(character, '/' | '\\' | ':' | '*' | '?' | '"' | '<' | '>' | '|' | '%');
        if is_special || character.is_control() {
            for byte in character.encode_utf8(&mut [0; 4]).bytes() {
                // Writing to a String cannot fail.
                write!(directory, "%{byte:02X}").unwrap_or_default();
            }
        } else {
            directory.push(character);
        }
    }
    if directory.len() > 240 {
        // Longer than a file name may be: the rest is a checksum. The description has the whole name.
        let checksum = fnv(name.as_str().as_bytes());
        directory.truncate(directory.floor_char_boundary(220));
        write!(directory, "%{checksum:016x}").unwrap_or_default();
    }
    directory
}

/// FNV-1a: stable between processes and versions, as the standard library's hash is not.
pub(crate) fn fnv(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Every queue, and which of them take a topic.
#[derive(Debug, Default)]
pub(crate) struct Routes {
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    queues: HashMap<Arc<str>, Arc<Queue>>,
    /// The directories of queues with a pattern that stands for exactly one topic, by that topic.
    literal: HashMap<Box<str>, BTreeSet<Arc<str>>>,
    /// The directories of queues with other patterns.
    wild: BTreeSet<Arc<str>>,
    by_topic: HashMap<Topic, Queues>,
    /// A set of its own for each queue that was sent to by name.
    by_name: HashMap<QueueName, Queues>,
    /// How much of which `changes` was read: its inode and size.
    read: Option<(u64, u64)>,
}

impl Routes {
    fn lock(&self) -> MutexGuard<'_, Table> {
        // Nothing in here panics half way through a change.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hears of queues that were made, changed or deleted.
    pub(crate) fn refresh(&self, store: &Store) -> Result<()> {
        self.lock().refresh(store)
    }

    /// The queues subscribed to a topic, as of the last refresh: a batch needs only one.
    pub(crate) fn subscribed(&self, topic: &Topic) -> Queues {
        let mut table = self.lock();
        if let Some(queues) = table.by_topic.get(topic) {
            return Arc::clone(queues);
        }
        let queues: Vec<_> = table.matching(topic).collect();
        let queues = Queues::from(queues);
        if table.by_topic.len() >= REMEMBERED_TOPICS_MAX {
            table.by_topic.clear();
        }
        table.by_topic.insert(topic.clone(), Arc::clone(&queues));
        queues
    }

    /// The queue of this name as a set of one, as of the last refresh; none when there is no such queue.
    pub(crate) fn named(&self, name: &QueueName) -> Option<Queues> {
        let mut table = self.lock();
        if let Some(queues) = table.by_name.get(name) {
            return Some(Arc::clone(queues));
        }
        let queue = table.queues.get(directory_of(name).as_str())?;
        let queues = Queues::from([Arc::clone(queue)]);
        table.by_name.insert(name.clone(), Arc::clone(&queues));
        Some(queues)
    }

    pub(crate) fn queue(&self, store: &Store, name: &QueueName) -> Result<Arc<Queue>> {
        self.refresh(store)?;
        let queues = self.named(name);
        queues.and_then(|queues| queues.first().cloned()).ok_or_else(|| Error::no_queue(name))
    }

    /// Every queue, by name.
    pub(crate) fn all(&self, store: &Store) -> Result<Vec<Arc<Queue>>> {
        let mut table = self.lock();
        table.refresh(store)?;
        let mut queues: Vec<_> = table.queues.values().cloned().collect();
        queues.sort_by(|one, other| one.name.as_str().cmp(other.name.as_str()));
        Ok(queues)
    }

    /// The temporary ones.
    pub(crate) fn temporary(&self, store: &Store) -> Result<Vec<Arc<Queue>>> {
        let mut table = self.lock();
        table.refresh(store)?;
        let is_temporary = |queue: &&Arc<Queue>| queue.lifetime == Lifetime::Temporary;
        Ok(table.queues.values().filter(is_temporary).cloned().collect())
    }
}

impl Table {
    /// The queues subscribed to a topic, by directory.
    fn matching(&self, topic: &Topic) -> impl Iterator<Item = Arc<Queue>> {
        let is_wild = |pattern: &Pattern| !pattern.is_literal() && pattern.matches(topic);
        let takes = |queue: &&Arc<str>| {
            self.queues.get(*queue).is_some_and(|queue| queue.patterns.iter().any(is_wild))
        };
        let wild = self.wild.iter().filter(takes);
        let directories: BTreeSet<_> =
            self.literal.get(topic.as_str()).into_iter().flatten().chain(wild).collect();
        directories.into_iter().filter_map(|directory| self.queues.get(directory).cloned())
    }

    fn insert(&mut self, queue: Queue) {
        for pattern in &queue.patterns {
            if pattern.is_literal() {
                let directories = self.literal.entry(pattern.as_str().into()).or_default();
                directories.insert(Arc::clone(&queue.directory));
            } else {
                self.wild.insert(Arc::clone(&queue.directory));
            }
        }
        self.queues.insert(Arc::clone(&queue.directory), Arc::new(queue));
    }

    fn remove(&mut self, directory: &str) {
        let Some(queue) = self.queues.remove(directory) else { return };
        self.wild.remove(directory);
        for pattern in &queue.patterns {
            if let Some(directories) = self.literal.get_mut(pattern.as_str()) {
                directories.remove(directory);
                if directories.is_empty() {
                    self.literal.remove(pattern.as_str());
                }
            }
        }
    }

    /// Reads what changed since the last look.
    fn refresh(&mut self, store: &Store) -> Result<()> {
        let found = match fs::statat(store.root(), CHANGES, AtFlags::empty()) {
            Ok(stat) => (stat.st_ino, u64::try_from(stat.st_size).unwrap_or(0)),
            // Nothing was ever declared here.
            Err(Errno::NOENT) => (0, 0),
            Err(errno) => return Err(error::io("looking for changed queues", errno)),
        };
        if self.read == Some(found) {
            return Ok(());
        }
        self.by_topic.clear();
        self.by_name.clear();
        match self.read {
            Some((inode, size)) if inode == found.0 && size < found.1 => {
                for directory in changed(store, size, found.1)? {
                    self.read_queue(store, &directory)?;
                }
            }
            _ => self.read_all(store)?,
        }
        self.read = Some(found);
        Ok(())
    }

    fn read_all(&mut self, store: &Store) -> Result<()> {
        self.queues.clear();
        self.literal.clear();
        self.wild.clear();
        let names = disk::names(&store.queues).map_err(|errno| error::io("listing the queues", errno))?;
        names.iter().try_for_each(|directory| self.read_queue(store, directory))
    }

    fn read_queue(&mut self, store: &Store, directory: &str) -> Result<()> {
        match Queue::read(store, directory) {
            Ok(queue) => {
                self.remove(directory);
                if let Some(queue) = queue {
                    self.insert(queue);
                }
            }
            // One damaged description must not stop the others.
            Err(error) if error.kind() == estafette_core::ErrorKind::Corrupt => {
                tracing::warn!(error = error.report(), "a queue's description cannot be read");
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

/// The directories named in a part of `changes`.
fn changed(store: &Store, from: u64, to: u64) -> Result<Vec<String>> {
    let failed = |errno| error::io("reading the changed queues", errno);
    let file = disk::open_file(store.root(), CHANGES).map_err(failed)?;
    let mut bytes = Vec::new();
    disk::read_at(&file, from, usize::try_from(to - from).unwrap_or(usize::MAX), &mut bytes)
        .map_err(failed)?;
    let mut directories: Vec<String> =
        String::from_utf8_lossy(&bytes).lines().map(str::to_owned).filter(|line| !line.is_empty()).collect();
    directories.sort();
    directories.dedup();
    Ok(directories)
}

/// Tells every process that something about a queue changed.
pub(crate) fn announce(store: &Store, directory: &str) -> Result<()> {
    let failed = |errno| error::io("announcing a changed queue", errno);
    let file = disk::open_append(store.root(), CHANGES).map_err(failed)?;
    disk::write_all(&file, format!("{directory}\n").as_bytes()).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_are_legal_names_and_differ() {
        let directory = |name: &str| directory_of(&name.try_into().unwrap());
        assert_eq!(directory("billing.eu"), "billing.eu");
        assert_eq!(directory("a/b"), "a%2Fb");
        assert_eq!(directory("a%2Fb"), "a%252Fb");
        assert_eq!(directory("заказы"), "заказы");
        let long = |end: &str| directory(&format!("{}{end}", "/".repeat(199)));
        assert!(long("a").len() <= 255 && long("a") != long("b"));
    }
}
