//! News from the kernel: what appears in `new/` of the queues this process receives from, and owners that end.
//!
//! One thread per transport waits on inotify and wakes receivers. Where there is no inotify, or the directory is on a network
//! file system, whose other users' changes the kernel does not report, receivers look for themselves ten times a second.

use std::{
    collections::HashMap,
    mem::MaybeUninit,
    os::fd::OwnedFd,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};

use crate::{open::OpenQueue, store::Store};

/// Room for a few hundred events.
const BUFFER_BYTES: usize = 32 << 10;

/// File systems whose changes by other machines inotify does not report: NFS, SMB (three kinds), FUSE, 9P, Ceph, AFS.
const REMOTE: [u64; 8] =
    [0x6969, 0xff53_4d42, 0xfe53_4d42, 0x517b, 0x6573_5546, 0x0102_1997, 0x00c3_6400, 0x5346_414f];

pub(crate) struct Watcher {
    shared: Arc<Watched>,
    owners: i32,
}

struct Watched {
    inotify: OwnedFd,
    queues: Mutex<HashMap<i32, Weak<OpenQueue>>>,
    ended: AtomicBool,
}

impl Watched {
    fn lock(&self) -> MutexGuard<'_, HashMap<i32, Weak<OpenQueue>>> {
        // Nothing in here panics half way through a change.
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watcher {
    /// Starts watching; none where that is not possible or not enough.
    pub(crate) fn start(store: &Store) -> Option<Self> {
        if is_remote(store) {
            return None;
        }
        let started = Self::try_start(store);
        if let Err(error) = &started {
            tracing::warn!(%error, "no news from the kernel: receivers look ten times a second instead");
        }
        started.ok()
    }

    fn try_start(store: &Store) -> std::io::Result<Self> {
        let inotify = inotify::init(CreateFlags::CLOEXEC)?;
        // A process that ends closes the file it has locked.
        let owners = inotify::add_watch(&inotify, store.path_of(&["owners"]), WatchFlags::CLOSE_WRITE)?;
        let (queues, ended) = (Mutex::default(), AtomicBool::new(false));
        let shared = Arc::new(Watched { inotify, queues, ended });
        let watched = Arc::clone(&shared);
        thread::Builder::new().name("estafette-file-watcher".into()).spawn(move || run(&watched, owners))?;
        Ok(Self { shared, owners })
    }

    /// Reports what appears in the queue from now on.
    pub(crate) fn watch(&self, store: &Store, queue: &Arc<OpenQueue>) {
        let flags = WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::DELETE_SELF | WatchFlags::ONLYDIR;
        let path = store.path_of(&["queues", &queue.queue.directory, "new"]);
        let mut queues = self.shared.lock();
        match inotify::add_watch(&self.shared.inotify, path, flags) {
            Ok(watch) => {
                queues.insert(watch, Arc::downgrade(queue));
                queue.has_news.store(true, Ordering::Release);
            }
            Err(errno) => tracing::warn!(
                queue = queue.queue.name.as_str(), %errno,
                "no news of this queue from the kernel: its receivers look ten times a second instead"
            ),
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Release);
        // Ending a watch is an event, too: it wakes the thread.
        inotify::remove_watch(&self.shared.inotify, self.owners).unwrap_or_default();
    }
}

fn is_remote(store: &Store) -> bool {
    rustix::fs::fstatfs(store.root()).is_ok_and(|stat| {
        let kind = u64::from_ne_bytes(stat.f_type.to_ne_bytes()) & 0xffff_ffff;
        REMOTE.contains(&kind)
    })
}

fn run(watched: &Watched, owners: i32) {
    let mut buffer = [MaybeUninit::uninit(); BUFFER_BYTES];
    let mut reader = inotify::Reader::new(&watched.inotify, &mut buffer);
    let mut arrived: HashMap<i32, Vec<String>> = HashMap::new();
    loop {
        let read = reader.next();
        if watched.ended.load(Ordering::Acquire) {
            return;
        }
        match read {
            Ok(event) if event.events().contains(ReadFlags::QUEUE_OVERFLOW) => {
                each_queue(watched, |queue| queue.doubt());
            }
            Ok(event) if event.wd() == owners => each_queue(watched, |queue| queue.recover_soon()),
            Ok(event) if event.events().intersects(ReadFlags::IGNORED | ReadFlags::DELETE_SELF) => {
                // The queue was deleted: its receivers find out.
                let queue = watched.lock().remove(&event.wd()).and_then(|queue| queue.upgrade());
                if let Some(queue) = queue {
                    queue.arrived.notify_waiters();
                }
            }
            Ok(event) => {
                if let Some(name) = event.file_name().and_then(|name| name.to_str().ok()) {
                    arrived.entry(event.wd()).or_default().push(name.to_owned());
                }
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => {
                tracing::warn!(%errno, "no more news from the kernel: receivers look ten times a second instead");
                each_queue(watched, |queue| queue.has_news.store(false, Ordering::Release));
                return;
            }
        }
        if reader.is_buffer_empty() {
            report(watched, &mut arrived);
        }
    }
}

/// Hands over what came with one read, so that a burst of files wakes a queue once.
fn report(watched: &Watched, arrived: &mut HashMap<i32, Vec<String>>) {
    for (watch, names) in arrived.drain() {
        let queue = watched.lock().get(&watch).and_then(Weak::upgrade);
        match queue {
            Some(queue) => queue.note_arrivals(names.iter().map(String::as_str)),
            // Nobody receives from it any more.
            None if watched.lock().remove(&watch).is_some() => {
                inotify::remove_watch(&watched.inotify, watch).unwrap_or_default();
            }
            None => {}
        }
    }
}

fn each_queue(watched: &Watched, each: impl Fn(&OpenQueue)) {
    let queues: Vec<_> = watched.lock().values().filter_map(Weak::upgrade).collect();
    queues.iter().for_each(|queue| each(queue));
}
