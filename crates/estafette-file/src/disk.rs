//! The few things done with directories and small files, each with an error that says what was being done.

use std::os::fd::{AsFd, OwnedFd};

use estafette_core::Result;
use rustix::{
    fs::{self, AtFlags, Mode, OFlags},
    io::Errno,
};

use crate::error;

pub(crate) const FILE_MODE: Mode = Mode::from_raw_mode(0o644);
const DIR_MODE: Mode = Mode::from_raw_mode(0o755);

/// Opens a directory.
pub(crate) fn open_dir(at: impl AsFd, path: &str) -> Result<OwnedFd, Errno> {
    fs::openat(at, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

/// Makes a directory unless it is there.
pub(crate) fn make_dir(at: impl AsFd, name: &str) -> Result<()> {
    match fs::mkdirat(at, name, DIR_MODE) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(error::io(&format!("making the directory {name}"), errno)),
    }
}

/// Opens a file for reading.
pub(crate) fn open_file(at: impl AsFd, name: &str) -> Result<OwnedFd, Errno> {
    fs::openat(
        at,
        name,
        OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK,
        Mode::empty(),
    )
}

/// Creates a file that must not be there.
pub(crate) fn create_file(at: impl AsFd, name: &str) -> Result<OwnedFd, Errno> {
    fs::openat(at, name, OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC, FILE_MODE)
}

/// Opens a file for appending, making it when it is not there.
pub(crate) fn open_append(at: impl AsFd, name: &str) -> Result<OwnedFd, Errno> {
    fs::openat(at, name, OFlags::WRONLY | OFlags::CREATE | OFlags::APPEND | OFlags::CLOEXEC, FILE_MODE)
}

/// Writes all of `bytes` at the file's position.
pub(crate) fn write_all(file: impl AsFd, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match rustix::io::write(&file, bytes) {
            // A file that takes nothing and reports nothing is full.
            Ok(0) => return Err(Errno::NOSPC),
            Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Appends up to `max` bytes of the file from `offset` to `buffer`; fewer only at the end of the file.
pub(crate) fn read_at(
    file: impl AsFd,
    offset: u64,
    max: usize,
    buffer: &mut Vec<u8>,
) -> Result<usize, Errno> {
    let start = buffer.len();
    buffer.resize(start + max, 0);
    let mut filled = 0;
    while filled < max {
        let free = buffer.get_mut(start + filled..).unwrap_or_default();
        match rustix::io::pread(&file, free, offset + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(Errno::INTR) => {}
            Err(errno) => {
                buffer.truncate(start);
                return Err(errno);
            }
        }
    }
    buffer.truncate(start + filled);
    Ok(filled)
}

/// The whole of a file.
pub(crate) fn read_file(at: impl AsFd, name: &str) -> Result<Vec<u8>, Errno> {
    let file = open_file(at, name)?;
    let size = usize::try_from(fs::fstat(&file)?.st_size).unwrap_or(0);
    let mut bytes = Vec::new();
    // One more than its size, so that a file that grew meanwhile is noticed and read on.
    let mut max = size + 1;
    while read_at(&file, bytes.len() as u64, max, &mut bytes)? == max {
        max = max.saturating_mul(2).min(1 << 20);
    }
    Ok(bytes)
}

/// Whether there is an entry of this name.
pub(crate) fn exists(at: impl AsFd, name: &str) -> Result<bool, Errno> {
    match fs::statat(at, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(_) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// Removes a file; whether it was there.
pub(crate) fn remove_file(at: impl AsFd, name: &str) -> Result<bool, Errno> {
    match fs::unlinkat(at, name, AtFlags::empty()) {
        Ok(()) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// Calls `each` with the name of everything in a directory, in no order. What is added or removed meanwhile may be seen or not.
pub(crate) fn for_each_name(dir: impl AsFd, mut each: impl FnMut(&[u8])) -> Result<(), Errno> {
    for entry in fs::Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            each(name);
        }
    }
    Ok(())
}

/// The names in a directory that are text, in no order.
pub(crate) fn names(dir: impl AsFd) -> Result<Vec<String>, Errno> {
    let mut names = Vec::new();
    for_each_name(dir, |name| names.extend(std::str::from_utf8(name).ok().map(str::to_owned)))?;
    Ok(names)
}
