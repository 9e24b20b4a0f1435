//! Making, changing and deleting queues. One process at a time does so; publishing and receiving do not wait for it.

use std::os::fd::OwnedFd;

use estafette_core::{Error, Lifetime, Pattern, QueueName, QueueSpec, Result};
use rustix::{
    fs::{self, AtFlags, FlockOperation, OFlags},
    io::Errno,
};

use crate::{
    disk, error,
    owner::random_id,
    queues::{self, DESCRIPTION, Queue, Routes},
    store::Store,
};

/// The folders of a queue.
pub(crate) const FOLDERS: [&str; 3] = ["new", "claimed", "dead"];

/// Held while a queue is made, changed or deleted.
struct Changing {
    _lock: OwnedFd,
}

impl Changing {
    fn begin(store: &Store) -> Result<Self> {
        let failed = |errno| error::io("taking the lock on the queues", errno);
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC;
        let lock = fs::openat(store.root(), "lock", flags, disk::FILE_MODE).map_err(failed)?;
        fs::flock(&lock, FlockOperation::LockExclusive).map_err(failed)?;
        Ok(Self { _lock: lock })
    }
}

/// Makes sure a queue exists, has these patterns, and is known to `routes`.
///
/// That its description can be read is not enough: whoever makes it may not have announced it yet, and may never do so. Once
/// the lock is free, either it was announced or it is announced here.
pub(crate) fn declare(store: &Store, routes: &Routes, spec: &QueueSpec) -> Result<()> {
    routes.refresh(store)?;
    let known = routes.named(&spec.name);
    if known.iter().flat_map(|queues| queues.iter()).any(|queue| !needs_change(queue, spec)) {
        return Ok(());
    }
    let directory = queues::directory_of(&spec.name);
    let _changing = Changing::begin(store)?;
    match Queue::read(store, &directory)? {
        None => create(store, spec, &directory)?,
        Some(queue) if queue.lifetime != spec.lifetime => return Err(error::lifetime_conflict(&spec.name)),
        Some(mut queue) => {
            queue.patterns.extend(spec.patterns.iter().cloned());
            store_description(store, &mut queue)?;
        }
    }
    queues::announce(store, &directory)
}

fn needs_change(queue: &Queue, spec: &QueueSpec) -> bool {
    queue.lifetime != spec.lifetime || spec.patterns.iter().any(|pattern| !queue.patterns.contains(pattern))
}

/// Makes the whole directory aside and then gives it its name, so that nobody sees half a queue.
fn create(store: &Store, spec: &QueueSpec, directory: &str) -> Result<()> {
    let failed = |errno| error::io(&format!("making the queue {}", spec.name), errno);
    let tmp_name = store.new_file().to_string();
    disk::make_dir(&store.tmp, &tmp_name)?;
    let tmp = disk::open_dir(&store.tmp, &tmp_name).map_err(failed)?;
    for folder in FOLDERS {
        disk::make_dir(&tmp, folder)?;
    }
    let mut patterns = spec.patterns.clone();
    patterns.sort();
    patterns.dedup();
    let queue = Queue {
        name: spec.name.clone(),
        directory: directory.into(),
        patterns,
        lifetime: spec.lifetime,
        owner: (spec.lifetime == Lifetime::Temporary).then_some(store.owner.id),
        incarnation: random_id().to_string(),
    };
    store.replace_file(&tmp, DESCRIPTION, &queue.describe())?;
    match fs::renameat(&store.tmp, &*tmp_name, &store.queues, directory) {
        Ok(()) => {}
        // What a deletion that was interrupted left: it has no description, so it is no queue.
        Err(Errno::NOTEMPTY | Errno::EXIST) => {
            remove_tree(store, directory)?;
            fs::renameat(&store.tmp, &*tmp_name, &store.queues, directory).map_err(failed)?;
        }
        Err(errno) => return Err(failed(errno)),
    }
    store.flush_dir(&store.queues)
}

fn store_description(store: &Store, queue: &mut Queue) -> Result<()> {
    queue.patterns.sort();
    queue.patterns.dedup();
    let dir = disk::open_dir(&store.queues, &queue.directory)
        .map_err(|errno| error::io(&format!("opening the queue {}", queue.name), errno))?;
    store.replace_file(&dir, DESCRIPTION, &queue.describe())
}

/// Takes a pattern from a queue.
pub(crate) fn unsubscribe(store: &Store, name: &QueueName, pattern: &Pattern) -> Result<()> {
    let _changing = Changing::begin(store)?;
    let directory = queues::directory_of(name);
    let Some(mut queue) = Queue::read(store, &directory)? else { return Err(Error::no_queue(name)) };
    queue.patterns.retain(|known| known != pattern);
    store_description(store, &mut queue)?;
    queues::announce(store, &directory)
}

/// Deletes a queue with all that is in it.
pub(crate) fn delete(store: &Store, name: &QueueName) -> Result<()> {
    let _changing = Changing::begin(store)?;
    let directory = queues::directory_of(name);
    let description = format!("{directory}/{DESCRIPTION}");
    // Without its description it is no queue any more; what is left of it can be removed at leisure.
    match disk::remove_file(&store.queues, &description) {
        Ok(true) => {}
        Ok(false) | Err(Errno::NOTDIR) => return Err(Error::no_queue(name)),
        Err(errno) => return Err(error::io(&format!("deleting the queue {name}"), errno)),
    }
    queues::announce(store, &directory)?;
    remove_tree(store, &directory)
}

/// Removes a queue's directory. A publisher that has not heard yet may put a file into it meanwhile, so it is tried a few
/// times; once `new/` is gone, publishers notice.
fn remove_tree(store: &Store, directory: &str) -> Result<()> {
    let failed = |errno| error::io(&format!("removing {directory}"), errno);
    for attempt in 0.. {
        let removed = try_remove_tree(store, directory);
        match removed {
            Ok(()) | Err(Errno::NOENT) => break,
            Err(Errno::NOTEMPTY | Errno::EXIST) if attempt < 100 => {}
            Err(errno) => return Err(failed(errno)),
        }
    }
    store.flush_dir(&store.queues)
}

fn try_remove_tree(store: &Store, directory: &str) -> Result<(), Errno> {
    let dir = disk::open_dir(&store.queues, directory)?;
    for folder in FOLDERS {
        let files = match disk::open_dir(&dir, folder) {
            Ok(files) => files,
            Err(Errno::NOENT) => continue,
            Err(errno) => return Err(errno),
        };
        for name in disk::names(&files)? {
            disk::remove_file(&files, &name)?;
        }
        fs::unlinkat(&dir, folder, AtFlags::REMOVEDIR)?;
    }
    for name in disk::names(&dir)? {
        disk::remove_file(&dir, &name)?;
    }
    fs::unlinkat(&store.queues, directory, AtFlags::REMOVEDIR)
}

/// Deletes temporary queues whose process has ended.
pub(crate) fn delete_orphans(store: &Store, queues: &[std::sync::Arc<Queue>]) {
    for queue in queues {
        if queue.owner.is_none_or(|owner| store.owner.is_dead(owner)) {
            // Somebody else was quicker, or will be.
            delete(store, &queue.name).unwrap_or_default();
        }
    }
}
