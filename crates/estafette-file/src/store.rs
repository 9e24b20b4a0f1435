//! The directory: what is where, and what every part of the transport shares.

use std::{
    os::fd::{AsFd, OwnedFd},
    path::Path,
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
};

use estafette_core::{Result, Timestamp};
use rustix::fs;

use crate::{
    clock::Clock,
    config::{FileConfig, FileDurability},
    disk, error,
    name::{FileId, OwnerId},
    owner::Owner,
};

#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) config: FileConfig,
    pub(crate) clock: Clock,
    pub(crate) owner: Owner,
    root: OwnedFd,
    /// A directory for each queue.
    pub(crate) queues: OwnedFd,
    /// Files being written, on the same file system.
    pub(crate) tmp: OwnedFd,
    /// What was found where it does not belong.
    aside: OwnedFd,
    next_file: AtomicU32,
    next_claim: AtomicU64,
}

impl Store {
    /// Opens the directory, making what is missing.
    pub(crate) fn open(config: FileConfig) -> Result<Self> {
        let shown = config.path.display().to_string();
        std::fs::create_dir_all(&config.path)
            .map_err(|error| error::std_io(&format!("making the directory {shown}"), &error))?;
        let failed = |errno| error::io(&format!("opening the directory {shown}"), errno);
        let path = config.path.to_str().map_or_else(
            || Err(error::corrupt(&config.path, "the path of a file transport must be Unicode")),
            Ok,
        )?;
        let root = disk::open_dir(fs::CWD, path).map_err(failed)?;
        let folder = |name: &str| -> Result<OwnedFd> {
            disk::make_dir(&root, name)?;
            disk::open_dir(&root, name).map_err(failed)
        };
        let (queues, tmp, aside) = (folder("queues")?, folder("tmp")?, folder("aside")?);
        let owner = Owner::register(folder("owners")?, tmp.as_fd())?;
        let clock = Clock::new(config.clock_skew);
        clock.keep_right(owner.probe());
        owner.forget_dead();
        let (next_file, next_claim) = (AtomicU32::new(0), AtomicU64::new(0));
        let store = Self { config, clock, owner, root, queues, tmp, aside, next_file, next_claim };
        if store.flushes() {
            fs::fsync(&store.root).map_err(failed)?;
        }
        store.remove_left_overs();
        Ok(store)
    }

    pub(crate) fn root(&self) -> &OwnedFd {
        &self.root
    }

    pub(crate) fn path(&self) -> &Path {
        &self.config.path
    }

    /// Whether what is stored must be on the disk.
    pub(crate) fn flushes(&self) -> bool {
        self.config.durability == FileDurability::Fsync
    }

    /// The time now, and a look at whether our clock is still right.
    pub(crate) fn now(&self) -> Timestamp {
        self.clock.keep_right(self.owner.probe());
        self.clock.now()
    }

    pub(crate) fn new_file(&self) -> FileId {
        FileId { owner: self.owner.id, number: self.next_file.fetch_add(1, Ordering::Relaxed) }
    }

    pub(crate) fn new_claim(&self) -> u64 {
        self.next_claim.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// A path inside of the directory, for watching and for messages.
    pub(crate) fn path_of(&self, parts: &[&str]) -> std::path::PathBuf {
        let mut path = self.config.path.clone();
        path.extend(parts);
        path
    }

    /// Flushes a directory, where that is asked for.
    pub(crate) fn flush_dir(&self, dir: impl AsFd) -> Result<()> {
        if self.flushes() {
            fs::fsync(dir).map_err(|errno| error::io("flushing a directory", errno))?;
        }
        Ok(())
    }

    /// Replaces a small file so that everybody sees either the old or the new one.
    pub(crate) fn replace_file(&self, dir: impl AsFd, name: &str, bytes: &[u8]) -> Result<()> {
        let tmp_name = self.new_file().to_string();
        let failed = |errno| error::io(&format!("writing {name}"), errno);
        let file = disk::create_file(&self.tmp, &tmp_name).map_err(failed)?;
        let written = disk::write_all(&file, bytes)
            .and_then(|()| if self.flushes() { fs::fsync(&file) } else { Ok(()) })
            .and_then(|()| fs::renameat(&self.tmp, &*tmp_name, &dir, name));
        if let Err(errno) = written {
            disk::remove_file(&self.tmp, &tmp_name).unwrap_or_default();
            return Err(failed(errno));
        }
        self.flush_dir(dir)
    }

    /// Moves something that does not belong where it was found out of the way, and says so.
    pub(crate) fn set_aside(&self, from: impl AsFd, name: &str, queue: &str, problem: &str) {
        let aside = format!("{}-{name}", self.new_file());
        // Cut where a file system would refuse; the number in front keeps it unique.
        let aside = aside.get(..aside.floor_char_boundary(250)).unwrap_or(&aside);
        match fs::renameat(from, name, &self.aside, aside) {
            Ok(()) => tracing::warn!(queue, file = name, aside, problem, "a file was set aside"),
            Err(rustix::io::Errno::NOENT) => {}
            Err(errno) => tracing::warn!(queue, file = name, problem, %errno, "a file cannot be set aside"),
        }
    }

    /// Removes what processes that ended left in `tmp/`: messages whose publishing never returned.
    fn remove_left_overs(&self) {
        let Ok(names) = disk::names(&self.tmp) else { return };
        for name in names {
            let owner = name.get(..12).and_then(OwnerId::parse);
            if owner.is_some_and(|owner| self.owner.is_dead(owner)) {
                let is_dir = fs::unlinkat(&self.tmp, &*name, fs::AtFlags::empty()).is_err();
                if is_dir {
                    std::fs::remove_dir_all(self.path_of(&["tmp", &name])).unwrap_or_default();
                }
            }
        }
    }
}
