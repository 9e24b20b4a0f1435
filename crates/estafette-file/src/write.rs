//! Writing sheets: a file without a name first, flushed, then linked under its entries' names, then the directories flushed.
//!
//! Nobody ever sees a partial file. What is interrupted half way has not been answered with `Ok`: a file without a name goes
//! away by itself; between the links of several queues some have the message and some have not, which the publisher, having
//! no answer, must put right by publishing again.

use std::{
    collections::HashMap,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    sync::Arc,
};

use estafette_core::{Error, ErrorKind, Result};
use rustix::{
    fs::{self, AtFlags, CWD, OFlags},
    io::Errno,
};

use crate::{
    disk, error,
    sheet::{Folder, Sheet},
    store::Store,
};

/// How many directories are kept open.
const OPEN_MAX: usize = 128;

/// How many files are made ahead.
const SPARE: usize = 2;

type FolderKey = (Arc<str>, Folder);

/// The writer's view of the disk.
pub(crate) struct Disk {
    folders: HashMap<FolderKey, Arc<OwnedFd>>,
    /// Files without a name, made while nobody waits: finding a free inode can take longer than writing to it.
    spare: Vec<OwnedFd>,
    /// Files without a name work here. Not on every file system, and not without `/proc`.
    nameless: bool,
}

/// An entry that was linked, to undo it.
type Linked = (Arc<OwnedFd>, String);

impl Disk {
    pub(crate) fn new() -> Self {
        Self { folders: HashMap::new(), spare: Vec::new(), nameless: cfg!(target_os = "linux") }
    }

    /// Writes all sheets: for each the error, if it failed. Of a failed sheet nothing is left.
    pub(crate) fn write(&mut self, store: &Store, sheets: &[Sheet]) -> Vec<Option<Error>> {
        let mut linked: Vec<Vec<Linked>> = Vec::with_capacity(sheets.len());
        let mut failed: Vec<Option<Error>> = Vec::with_capacity(sheets.len());
        for sheet in sheets {
            let mut links = Vec::new();
            failed.push(self.write_sheet(store, sheet, &mut links).err());
            linked.push(links);
        }
        self.flush_folders(store, sheets, &mut failed);
        for (links, error) in linked.iter().zip(&failed) {
            if error.is_some() {
                undo(links);
            }
        }
        failed
    }

    fn flush_folders(&mut self, store: &Store, sheets: &[Sheet], failed: &mut [Option<Error>]) {
        if !store.flushes() {
            return;
        }
        let mut flushed: HashMap<FolderKey, Option<Error>> = HashMap::new();
        for (sheet, failed) in sheets.iter().zip(failed).filter(|(_, failed)| failed.is_none()) {
            for queue in sheet.queues.iter() {
                let flush = || self.flush_folder(store, &queue.directory, sheet.folder).err();
                let key = (Arc::clone(&queue.directory), sheet.folder);
                let error = flushed.entry(key).or_insert_with(flush);
                if error.is_some() {
                    failed.clone_from(error);
                }
            }
        }
    }

    fn flush_folder(&mut self, store: &Store, directory: &Arc<str>, folder: Folder) -> Result<()> {
        let folder = self.folder(store, directory, folder)?;
        store.flush_dir(&*folder)
    }

    fn write_sheet(&mut self, store: &Store, sheet: &Sheet, links: &mut Vec<Linked>) -> Result<()> {
        let folders = sheet.queues.iter().map(|queue| self.folder(store, &queue.directory, sheet.folder));
        let folders = folders.collect::<Result<Vec<_>>>()?;
        let Some(first) = folders.first() else { return Ok(()) };
        if self.nameless {
            match self.write_nameless(store, &sheet.bytes) {
                Ok(file) => {
                    let source = format!("/proc/self/fd/{}", file.as_raw_fd());
                    match link_all(CWD, &source, AtFlags::SYMLINK_FOLLOW, (&folders, sheet), links) {
                        // No /proc, or a security module's doubt: the other way works everywhere.
                        Err((Errno::NOENT, is_first)) if is_first && !is_gone(first) => self.nameless = false,
                        result => return self.linked(sheet, result.map_err(|(errno, _)| errno)),
                    }
                }
                Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => self.nameless = false,
                Err(errno) => return self.linked(sheet, Err(errno)),
            }
        }
        let name = sheet.file.to_string();
        let written = write_named(store, &name, &sheet.bytes).and_then(|()| {
            let linked = link_all(&store.tmp, &name, AtFlags::empty(), (&folders, sheet), links);
            linked.map_err(|(errno, _)| errno)
        });
        disk::remove_file(&store.tmp, &name).unwrap_or_default();
        self.linked(sheet, written)
    }

    fn write_nameless(&mut self, store: &Store, bytes: &[u8]) -> Result<OwnedFd, Errno> {
        let file = match self.spare.pop() {
            Some(file) => file,
            None => make_nameless(store)?,
        };
        fill(store, &file, bytes)?;
        Ok(file)
    }

    /// Makes ready for the next sheets. What does not work now will be reported when it is needed.
    pub(crate) fn prepare(&mut self, store: &Store) {
        while self.nameless && self.spare.len() < SPARE {
            let Ok(file) = make_nameless(store) else { break };
            self.spare.push(file);
        }
    }

    fn linked(&mut self, sheet: &Sheet, result: Result<(), Errno>) -> Result<()> {
        match result {
            Ok(()) => Ok(()),
            Err(Errno::NOENT) => {
                // A queue was deleted meanwhile: what is open of it is no use any more.
                self.folders.clear();
                Err(gone(
                    &sheet.queues.iter().map(|queue| queue.name.as_str()).collect::<Vec<_>>().join(", "),
                ))
            }
            Err(errno) => Err(error::io("storing messages", errno)),
        }
    }

    fn folder(&mut self, store: &Store, directory: &Arc<str>, folder: Folder) -> Result<Arc<OwnedFd>> {
        let key = (Arc::clone(directory), folder);
        if let Some(open) = self.folders.get(&key) {
            return Ok(Arc::clone(open));
        }
        if self.folders.len() >= OPEN_MAX {
            self.folders.clear();
        }
        let path = format!("{directory}/{}", folder.name());
        let open = match disk::open_dir(&store.queues, &path) {
            Ok(open) => Arc::new(open),
            Err(Errno::NOENT) => return Err(gone(directory)),
            Err(errno) => return Err(error::io(&format!("opening {path}"), errno)),
        };
        self.folders.insert(key, Arc::clone(&open));
        Ok(open)
    }
}

/// A queue that was there a moment ago is not any more.
fn gone(queues: &str) -> Error {
    Error::new(ErrorKind::NotFound, format!("queue {queues} was deleted while a message was being stored"))
}

fn is_gone(folder: &OwnedFd) -> bool {
    fs::fstat(folder).map_or(true, |stat| stat.st_nlink == 0)
}

fn make_nameless(store: &Store) -> Result<OwnedFd, Errno> {
    let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
    fs::openat(&store.tmp, ".", flags, disk::FILE_MODE)
}

fn write_named(store: &Store, name: &str, bytes: &[u8]) -> Result<(), Errno> {
    let file = disk::create_file(&store.tmp, name)?;
    fill(store, &file, bytes)
}

fn fill(store: &Store, file: &OwnedFd, bytes: &[u8]) -> Result<(), Errno> {
    disk::write_all(file, bytes)?;
    if store.flushes() { fs::fsync(file) } else { Ok(()) }
}

/// Links a file under the names of all entries in all folders. The error tells whether it was the first link that failed.
fn link_all(
    at: impl AsFd,
    source: &str,
    flags: AtFlags,
    (folders, sheet): (&[Arc<OwnedFd>], &Sheet),
    links: &mut Vec<Linked>,
) -> Result<(), (Errno, bool)> {
    for entry in &sheet.entries {
        let name = entry.to_string();
        for folder in folders {
            fs::linkat(&at, source, folder, &*name, flags).map_err(|errno| (errno, links.is_empty()))?;
            links.push((Arc::clone(folder), name.clone()));
        }
    }
    Ok(())
}

fn undo(links: &[Linked]) {
    for (folder, name) in links {
        // A consumer may have taken it already, which at-least-once allows.
        disk::remove_file(folder, name).unwrap_or_default();
    }
}
