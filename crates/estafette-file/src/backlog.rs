//! What waits in a queue, as far as this process knows: the names in `new/`, sorted, read once and kept up to date.
//!
//! Listing a directory for each message would make a long backlog slow. So it is listed once, the earliest names are kept, and
//! news (inotify) are put in where they belong. It is only a memory: another process may have been quicker with any of them,
//! which the rename shows.

use std::{collections::BTreeSet, ops::Bound};

use estafette_core::{Result, Timestamp};
use rustix::fd::AsFd;

use crate::{disk, error, name::EntryName};

/// How many of the earliest names are kept: some 20 MB. Beyond, the directory is listed again when these are used up.
const NAMES_MAX: usize = 200_000;

#[derive(Debug, Default)]
pub(crate) struct Backlog {
    names: BTreeSet<Box<str>>,
    /// All of those that have a partition key: retried messages, which hold back what has the same key.
    keyed: BTreeSet<Box<str>>,
    /// Files that somebody else put there, under names of their own.
    pub(crate) foreign: BTreeSet<Box<str>>,
    listed: Listed,
}

/// How much of the directory the names are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Listed {
    /// Unknown: it was never listed, or news were missed.
    #[default]
    Not,
    /// Everything.
    Whole,
    /// Everything up to the last name; there are later ones.
    Beginning,
}

/// What a listing found.
pub(crate) struct Listing {
    names: Vec<Box<str>>,
    keyed: Vec<Box<str>>,
    foreign: Vec<Box<str>>,
    is_whole: bool,
}

impl Backlog {
    /// Takes in what appeared in the directory.
    pub(crate) fn insert(&mut self, name: &str) {
        if EntryName::due_of(name).is_some() {
            if has_key(name) {
                self.keyed.insert(name.into());
            }
            let is_beyond = || self.names.last().is_none_or(|last| **last < *name);
            if self.listed != Listed::Beginning || !is_beyond() {
                self.names.insert(name.into());
                self.shorten();
            }
        } else if may_be_message(name) {
            self.foreign.insert(name.into());
        }
    }

    fn shorten(&mut self) {
        while self.names.len() > NAMES_MAX {
            self.names.pop_last();
            self.listed = Listed::Beginning;
        }
    }

    /// News may have been missed: the directory must be listed again.
    pub(crate) fn doubt(&mut self) {
        self.listed = Listed::Not;
    }

    pub(crate) fn needs_listing(&self) -> bool {
        self.listed == Listed::Not || (self.listed == Listed::Beginning && self.names.is_empty())
    }

    pub(crate) fn take_in(&mut self, listing: Listing) {
        self.listed = if listing.is_whole { Listed::Whole } else { Listed::Beginning };
        if self.names.is_empty() {
            self.names = listing.names.into_iter().collect();
        } else {
            self.names.extend(listing.names);
        }
        self.keyed.extend(listing.keyed);
        self.foreign.extend(listing.foreign);
        self.shorten();
    }

    /// The earliest name, taken out, if it is due.
    pub(crate) fn pop_due(&mut self, now: Timestamp) -> Option<Box<str>> {
        self.next_due().filter(|&due| due <= now)?;
        let name = self.names.pop_first()?;
        self.keyed.remove(&name);
        Some(name)
    }

    /// When the earliest one becomes visible.
    pub(crate) fn next_due(&self) -> Option<Timestamp> {
        self.names.first().and_then(|name| EntryName::due_of(name))
    }

    /// The earliest name at or after `from`.
    pub(crate) fn at_or_after(&self, from: &str) -> Option<&str> {
        self.names.range::<str, _>((Bound::Included(from), Bound::Unbounded)).next().map(|name| &**name)
    }

    /// Those that have a partition key, earliest first.
    pub(crate) fn keyed(&self) -> impl Iterator<Item = &str> {
        self.keyed.iter().map(|name| &**name)
    }

    /// Forgets a name that is not there any more.
    pub(crate) fn remove(&mut self, name: &str) {
        self.names.remove(name);
        self.keyed.remove(name);
    }
}

/// Lists the directory `new`. Takes about a second for a million names.
pub(crate) fn list(new: impl AsFd) -> Result<Listing> {
    let mut listing = Listing { names: Vec::new(), keyed: Vec::new(), foreign: Vec::new(), is_whole: true };
    let listed = disk::for_each_name(new, |name| {
        let Ok(name) = std::str::from_utf8(name) else { return };
        if EntryName::due_of(name).is_some() {
            listing.keyed.extend(has_key(name).then(|| Box::from(name)));
            listing.names.push(name.into());
            if listing.names.len() >= 2 * NAMES_MAX {
                listing.keep_earliest();
            }
        } else if may_be_message(name) {
            listing.foreign.push(name.into());
        }
    });
    listed.map_err(|errno| error::io("listing the messages of a queue", errno))?;
    if listing.names.len() > NAMES_MAX {
        listing.keep_earliest();
    }
    listing.names.sort_unstable();
    Ok(listing)
}

impl Listing {
    fn keep_earliest(&mut self) {
        self.names.select_nth_unstable(NAMES_MAX);
        self.names.truncate(NAMES_MAX);
        self.is_whole = false;
    }
}

/// Whether the name of an entry says that its lines have a partition key.
fn has_key(name: &str) -> bool {
    name.contains("-k")
}

/// Whether a file of this name, not one of ours, is meant as a message. Hidden and temporary files are somebody's work in
/// progress.
fn may_be_message(name: &str) -> bool {
    !name.starts_with('.') && ![".tmp", ".part", ".swp", "~"].iter().any(|end| name.ends_with(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(due: i64) -> String {
        format!("{due:016}-x.msg")
    }

    fn at(due: i64) -> Timestamp {
        Timestamp::from_micros(due)
    }

    #[test]
    fn names_come_out_by_due_time_and_not_before() {
        let mut backlog = Backlog::default();
        assert!(backlog.needs_listing());
        for due in [30, 10, 20] {
            backlog.insert(&name(due));
        }
        assert_eq!(backlog.pop_due(at(20)).as_deref(), Some(&*name(10)));
        assert_eq!(backlog.pop_due(at(20)).as_deref(), Some(&*name(20)));
        assert_eq!(backlog.pop_due(at(20)), None);
        assert_eq!(backlog.next_due(), Some(at(30)));
    }

    #[test]
    fn only_the_beginning_of_a_long_directory_is_kept_and_the_rest_listed_later() {
        let directory = tempfile::tempdir().unwrap();
        let mut backlog = Backlog::default();
        let names = |range: std::ops::Range<i64>| range.map(|due| name(due).into()).collect();
        backlog.take_in(Listing {
            names: names(0..2),
            keyed: Vec::new(),
            foreign: Vec::new(),
            is_whole: false,
        });
        backlog.insert(&name(5));
        assert_eq!(backlog.at_or_after(&name(2)), None, "later than what is known to be there");
        assert!(!backlog.needs_listing());
        while backlog.pop_due(at(100)).is_some() {}
        assert!(backlog.needs_listing());
        std::fs::write(directory.path().join(name(7)), "").unwrap();
        std::fs::write(directory.path().join("order.json"), "").unwrap();
        std::fs::write(directory.path().join(".hidden"), "").unwrap();
        backlog.take_in(list(std::fs::File::open(directory.path()).unwrap()).unwrap());
        assert_eq!(backlog.at_or_after(""), Some(&*name(7)));
        assert_eq!(backlog.foreign.len(), 1);
    }
}
