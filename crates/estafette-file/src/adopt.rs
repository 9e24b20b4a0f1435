//! Files that other programs put into `new/`, by hand or by `cp`: given a name of ours, or set aside.
//!
//! A file is complete when it has not been written to for a second; programs that write aside and rename need not wait, but
//! nothing tells them from the others.

use std::time::Duration;

use estafette_core::{Result, Timestamp, wire};
use rustix::{
    fs::{self, AtFlags, FileType},
    io::Errno,
};

use crate::{
    disk, error,
    held::Place,
    line,
    name::{EntryName, Span},
};

/// For how long a file must not have changed.
const QUIET: Duration = Duration::from_secs(1);

/// More lines than a journal's records can number.
const LINES_MAX: usize = 9_999_999;

/// What became of a file.
pub(crate) enum Adopted {
    Entry(EntryName),
    /// It may still be written to.
    NotYet(Duration),
    /// It is gone, or was set aside.
    Not,
}

pub(crate) fn adopt(place: Place<'_>, name: &str) -> Result<Adopted> {
    let new = &place.folders.new;
    let failed = |errno| error::io(&format!("adopting the file {name}"), errno);
    let stat = match fs::statat(new, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => stat,
        Err(Errno::NOENT) => return Ok(Adopted::Not),
        Err(errno) => return Err(failed(errno)),
    };
    let set_aside = |problem: &str| {
        place.store.set_aside(new, name, place.queue.as_str(), problem);
        Ok(Adopted::Not)
    };
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return set_aside("it is no file");
    }
    let changed_at = stat.st_mtime * 1_000_000 + i64::try_from(stat.st_mtime_nsec).unwrap_or(0) / 1000;
    let changed_at = Timestamp::from_micros(changed_at);
    let age = place.store.now().since(changed_at);
    if age < QUIET {
        return Ok(Adopted::NotYet(QUIET - age));
    }
    let bytes = match disk::read_file(new, name) {
        Ok(bytes) => bytes,
        Err(Errno::NOENT) => return Ok(Adopted::Not),
        Err(errno) => return Err(failed(errno)),
    };
    let lines: Vec<&[u8]> = bytes.split_inclusive(|&byte| byte == b'\n').collect();
    if !lines.iter().any(|line| wire::decode(line::split(line).1).is_ok()) {
        // One message over several lines, as editors and pretty-printers make them.
        if let Ok(envelope) = wire::decode(&bytes) {
            let mut line = Vec::new();
            line::write(&envelope, &mut line);
            place.store.replace_file(new, name, &line)?;
            return rename(place, name, changed_at, 1);
        }
        return set_aside("it holds no message");
    }
    match u32::try_from(lines.len()) {
        Ok(count) if lines.len() <= LINES_MAX => rename(place, name, changed_at, count),
        _ => set_aside("it has too many lines"),
    }
}

fn rename(place: Place<'_>, name: &str, due: Timestamp, count: u32) -> Result<Adopted> {
    let span = Span { first: 0, count, offset: 0 };
    let file = place.store.new_file();
    let entry = EntryName { due, file, span, attempts: 0, retrying: false, key: None };
    let new = &place.folders.new;
    match fs::renameat(new, name, new, entry.to_string()) {
        Ok(()) => Ok(Adopted::Entry(entry)),
        Err(Errno::NOENT) => Ok(Adopted::Not),
        Err(errno) => Err(error::io(&format!("adopting the file {name}"), errno)),
    }
}
