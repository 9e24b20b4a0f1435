//! Claiming an entry by renaming it, and giving back what is not wanted: exactly one of many processes wins.
//!
//! An entry may stand for more lines than are wanted. Then the winner links the others back under names of their own: the
//! claim's name says meanwhile (`-s`) which lines it keeps, so that an interruption leaves nothing unclear.

use std::os::fd::OwnedFd;

use estafette_core::{Error, Result, Timestamp};
use rustix::{
    fs::{self, AtFlags},
    io::Errno,
};

use crate::{
    disk, error,
    lines::ReadLines,
    name::{ClaimName, EntryName, Span},
    queues::Queue,
    store::Store,
};

/// The open folders of a queue.
#[derive(Debug)]
pub(crate) struct Folders {
    pub(crate) new: OwnedFd,
    pub(crate) claimed: OwnedFd,
    pub(crate) dead: OwnedFd,
}

impl Folders {
    pub(crate) fn open(store: &Store, queue: &Queue) -> Result<Self> {
        let open = |folder: &str| {
            let path = format!("{}/{folder}", queue.directory);
            disk::open_dir(&store.queues, &path).map_err(|errno| match errno {
                Errno::NOENT => Error::no_queue(&queue.name),
                errno => error::io(&format!("opening {path}"), errno),
            })
        };
        Ok(Self { new: open("new")?, claimed: open("claimed")?, dead: open("dead")? })
    }
}

/// Which lines of an entry are wanted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    /// The first one, counted from the start of the entry.
    pub(crate) skip: u32,
    /// At most so many.
    pub(crate) max: u32,
}

/// Lines that were claimed.
pub(crate) struct Taken {
    pub(crate) name: ClaimName,
    pub(crate) lines: ReadLines,
    /// The entries that were given back.
    pub(crate) rest: Vec<EntryName>,
}

/// Claims lines of the entry `found` until `until`; none when somebody else was quicker.
///
/// An error after the rename leaves the claim to its lease.
pub(crate) fn claim(
    store: &Store,
    folders: &Folders,
    found: &EntryName,
    wanted: Wanted,
    until: Timestamp,
) -> Result<Option<Taken>> {
    let span = found.span;
    let skip = wanted.skip.min(span.count - 1);
    let count = wanted.max.clamp(1, span.count - skip);
    let part = (count < span.count).then_some((span.first + skip, count));
    let entry = EntryName { attempts: found.attempts + 1, ..found.clone() };
    let mut name =
        ClaimName { entry, owner: store.owner.id, number: store.new_claim(), until, part, returning: false };
    let mut file_name = name.to_string();
    match fs::renameat(&folders.new, found.to_string(), &folders.claimed, &*file_name) {
        Ok(()) => {}
        Err(Errno::NOENT) => return Ok(None),
        Err(errno) => return Err(error::io("claiming a message", errno)),
    }
    let failed = |errno| error::io("reading a claimed message", errno);
    let file = disk::open_file(&folders.claimed, &file_name).map_err(failed)?;
    let lines = ReadLines::read(&file, span, skip + count).map_err(failed)?;
    if part.is_none() {
        return Ok(Some(Taken { name, lines, rest: Vec::new() }));
    }
    let rest = rest_of(found, &lines, skip, count);
    let failed = |errno| error::io("giving back part of a claimed file", errno);
    for entry in &rest {
        link_back(folders, &file_name, entry).map_err(failed)?;
    }
    let split = file_name;
    name.part = None;
    name.entry.span = Span { first: span.first + skip, count, offset: lines.offset(skip as usize) };
    file_name = name.to_string();
    fs::renameat(&folders.claimed, &*split, &folders.claimed, &*file_name).map_err(failed)?;
    let lines = lines.after(skip as usize);
    Ok(Some(Taken { name, lines, rest }))
}

/// The entries for what is before and after the wanted lines.
pub(crate) fn rest_of(found: &EntryName, lines: &ReadLines, skip: u32, count: u32) -> Vec<EntryName> {
    let span = found.span;
    let end = skip + count;
    let before = (skip > 0).then_some(Span { count: skip, ..span });
    // A file cut short has no lines after those that could be read.
    let after = (end < span.count && lines.len() >= end as usize).then(|| Span {
        first: span.first + end,
        count: span.count - end,
        offset: lines.offset(end as usize),
    });
    before.into_iter().chain(after).map(|span| found.with_span(span)).collect()
}

/// Makes part of a claimed file an entry of its own. That it is there already is what was wanted.
pub(crate) fn link_back(folders: &Folders, claimed: &str, entry: &EntryName) -> Result<(), Errno> {
    let name = entry.to_string();
    match fs::linkat(&folders.claimed, claimed, &folders.new, &*name, AtFlags::empty()) {
        Err(Errno::EXIST) => Ok(()),
        result => result,
    }
}

/// Gives a whole claimed file back under a name in `new/`; false when it is not ours any more.
pub(crate) fn rename_back(folders: &Folders, claimed: &str, entry: &EntryName) -> Result<bool, Errno> {
    match fs::renameat(&folders.claimed, claimed, &folders.new, entry.to_string()) {
        Ok(()) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(errno) => Err(errno),
    }
}
