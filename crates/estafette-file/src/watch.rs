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

use rustix::{
    event::{PollFd, PollFlags, poll},
    fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags},
    io::Errno,
};

use crate::{open::OpenQueue, store::Store};

/// Room for a few hundred events.
const BUFFER_BYTES: usize = 32 << 10;

/// File systems whose changes by other machines inotify does not report: NFS, SMB (three kinds), FUSE, 9P, Ceph, AFS.
const REMOTE: [u64; 8] =
    [0x6969, 0xff53_4d42, 0xfe53_4d42, 0x517b, 0x6573_5546, 0x0102_1997, 0x00c3_6400, 0x5346_414f];

pub(crate) struct Watcher {
    shared: Arc<Watched>,
}

struct Watched {
    inotify: OwnedFd,
    /// The owners' watch.
    owners: i32,
    targets: Mutex<HashMap<i32, Target>>,
    /// Held while events are read and handed over.
    reading: Mutex<()>,
    ended: AtomicBool,
}

/// Whom a watch is for.
struct Target {
    queue: Weak<OpenQueue>,
    folder: Watching,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Watching {
    /// What appears in `new/`.
    New,
    /// What is settled in `claimed/`: a partition key may be free.
    Claimed,
}

impl Watched {
    fn targets(&self) -> MutexGuard<'_, HashMap<i32, Target>> {
        // Nothing in here panics half way through a change.
        self.targets.lock().unwrap_or_else(PoisonError::into_inner)
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
            tracing::warn!(%error, "{NO_NEWS}");
        }
        started.ok()
    }

    fn try_start(store: &Store) -> std::io::Result<Self> {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        // A process that ends closes the file it has locked.
        let owners = inotify::add_watch(&inotify, store.path_of(&["owners"]), WatchFlags::CLOSE_WRITE)?;
        let (targets, reading, ended) = (Mutex::default(), Mutex::default(), AtomicBool::new(false));
        let shared = Arc::new(Watched { inotify, owners, targets, reading, ended });
        let watched = Arc::clone(&shared);
        thread::Builder::new().name("estafette-file-watcher".into()).spawn(move || run(&watched))?;
        Ok(Self { shared })
    }

    /// Reports what appears in the queue from now on.
    pub(crate) fn watch(&self, queue: &Arc<OpenQueue>) {
        let flags = WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::DELETE_SELF;
        if self.add(queue, Watching::New, flags) {
            queue.has_news.store(true, Ordering::Release);
        }
    }

    /// Reports what is settled in the queue from now on.
    pub(crate) fn watch_claimed(&self, queue: &Arc<OpenQueue>) {
        self.add(queue, Watching::Claimed, WatchFlags::DELETE | WatchFlags::MOVED_FROM | WatchFlags::MODIFY);
    }

    fn add(&self, queue: &Arc<OpenQueue>, folder: Watching, flags: WatchFlags) -> bool {
        let name = if folder == Watching::New { "new" } else { "claimed" };
        let path = queue.store.path_of(&["queues", &queue.queue.directory, name]);
        let mut targets = self.shared.targets();
        match inotify::add_watch(&self.shared.inotify, path, flags | WatchFlags::ONLYDIR) {
            Ok(watch) => {
                targets.insert(watch, Target { queue: Arc::downgrade(queue), folder });
                true
            }
            Err(errno) => {
                let queue = queue.queue.name.as_str();
                tracing::warn!(queue, %errno, "{NO_NEWS}");
                false
            }
        }
    }

    /// Takes in all news there are at this moment.
    pub(crate) fn read_all(&self) {
        self.shared.read_all();
    }
}

/// What is logged when there is no inotify.
const NO_NEWS: &str = "no news from the kernel: receivers look ten times a second instead";

impl Drop for Watcher {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Release);
        // Ending a watch is an event, too: it wakes the thread.
        inotify::remove_watch(&self.shared.inotify, self.shared.owners).unwrap_or_default();
    }
}

fn is_remote(store: &Store) -> bool {
    rustix::fs::fstatfs(store.root()).is_ok_and(|stat| {
        let kind = u64::from_ne_bytes(stat.f_type.to_ne_bytes()) & 0xffff_ffff;
        REMOTE.contains(&kind)
    })
}

fn run(watched: &Watched) {
    while !watched.ended.load(Ordering::Acquire) {
        match poll(&mut [PollFd::new(&watched.inotify, PollFlags::IN)], None) {
            Ok(_) | Err(Errno::INTR) => watched.read_all(),
            Err(errno) => {
                tracing::warn!(%errno, "{NO_NEWS}");
                return watched.each_queue(|queue| queue.has_news.store(false, Ordering::Release));
            }
        }
    }
}

impl Watched {
    fn read_all(&self) {
        let _reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        let mut buffer = [MaybeUninit::uninit(); BUFFER_BYTES];
        let mut reader = inotify::Reader::new(&self.inotify, &mut buffer);
        let mut arrived: HashMap<i32, Vec<String>> = HashMap::new();
        while let Ok(event) = reader.next() {
            let watch = event.wd();
            if event.events().contains(ReadFlags::QUEUE_OVERFLOW) {
                self.each_queue(OpenQueue::doubt);
            } else if watch == self.owners {
                self.each_queue(OpenQueue::recover_soon);
            } else if event.events().intersects(ReadFlags::IGNORED | ReadFlags::DELETE_SELF) {
                // The queue was deleted: its receivers find out.
                let target = self.targets().remove(&watch).and_then(|target| target.queue.upgrade());
                target.iter().for_each(|queue| queue.arrived.notify_waiters());
            } else {
                let names = arrived.entry(watch).or_default();
                names.extend(event.file_name().and_then(|name| name.to_str().ok()).map(str::to_owned));
            }
        }
        self.report(arrived);
    }

    /// Hands over what came together, so that a burst of files wakes a queue once.
    fn report(&self, arrived: HashMap<i32, Vec<String>>) {
        for (watch, names) in arrived {
            let target = self.targets().get(&watch).map(|target| (target.queue.upgrade(), target.folder));
            match target {
                Some((Some(queue), Watching::New)) => queue.note_arrivals(names.iter().map(String::as_str)),
                Some((Some(queue), Watching::Claimed)) => queue.arrived.notify_waiters(),
                // Nobody receives from it any more.
                Some((None, _)) => {
                    self.targets().remove(&watch);
                    inotify::remove_watch(&self.inotify, watch).unwrap_or_default();
                }
                None => {}
            }
        }
    }

    fn each_queue(&self, each: impl Fn(&OpenQueue)) {
        let queues: Vec<_> = self.targets().values().filter_map(|target| target.queue.upgrade()).collect();
        queues.iter().for_each(|queue| each(queue));
    }
}
