//! Taking back claims whose lease has ended or whose owner is dead.
//!
//! What the claim's journal says is settled stays settled; the rest returns to `new/` under its old due time, so that it comes
//! before what was published later, with the hand-over counted.

use estafette_core::{Result, Timestamp};
use rustix::{fs, io::Errno};
use std::{collections::HashSet, time::Duration};

use crate::{
    claim::{Folders, link_back, rename_back, rest_of},
    disk, error, journal,
    lines::ReadLines,
    name::{ClaimName, EntryName, Span},
    store::Store,
};

/// How long a claim stays with who is returning it. It takes a millisecond, or that process died too.
const RETURNING: Duration = Duration::from_secs(10);

/// What a look through the claims found.
#[derive(Debug, Default)]
pub(crate) struct Recovered {
    /// Entries that are ready again.
    pub(crate) entries: Vec<EntryName>,
    /// When the next lease of somebody else ends.
    pub(crate) next_end: Option<Timestamp>,
}

/// Looks through the claims and takes back what nobody holds any more. `is_held` tells which claims of our own are in use.
pub(crate) fn recover(
    store: &Store,
    folders: &Folders,
    queue: &str,
    is_held: impl Fn(u64) -> bool,
) -> Result<Recovered> {
    let failed = |errno| error::io("looking for abandoned claims", errno);
    let now = store.now();
    let mut recovered = Recovered::default();
    for file_name in disk::names(&folders.claimed).map_err(failed)? {
        if file_name.ends_with(crate::name::JOURNAL_SUFFIX) {
            continue;
        }
        let Some(claim) = ClaimName::parse(&file_name) else {
            if !file_name.starts_with('.') {
                store.set_aside(&folders.claimed, &file_name, queue, "its name is none of a claim");
            }
            continue;
        };
        if claim.owner == store.owner.id && !claim.returning && is_held(claim.number) {
            continue;
        }
        if claim.until > now && (claim.returning || !store.owner.is_dead(claim.owner)) {
            let end = recovered.next_end.map_or(claim.until, |end| end.min(claim.until));
            recovered.next_end = Some(end);
            continue;
        }
        recovered.entries.extend(take_back(store, folders, &claim, &file_name).map_err(failed)?);
    }
    Ok(recovered)
}

/// Returns what is not settled of a claim; nothing when somebody else was quicker.
fn take_back(
    store: &Store,
    folders: &Folders,
    claim: &ClaimName,
    file_name: &str,
) -> Result<Vec<EntryName>, Errno> {
    let journal = claim.journal();
    let is_plain = claim.part.is_none() && !claim.returning && !disk::exists(&folders.claimed, &journal)?;
    if is_plain {
        let is_back = rename_back(folders, file_name, &claim.entry)?;
        return Ok(if is_back { vec![claim.entry.clone()] } else { Vec::new() });
    }
    // From here on the owner has lost it, and so has everybody else who is about to return it.
    let ours = ClaimName { returning: true, until: store.now() + RETURNING, ..claim.clone() };
    let ours_name = ours.to_string();
    match fs::renameat(&folders.claimed, file_name, &folders.claimed, &*ours_name) {
        Ok(()) => {}
        Err(Errno::NOENT) => return Ok(Vec::new()),
        Err(errno) => return Err(errno),
    }
    let entries = unsettled(folders, &ours, &ours_name)?;
    match entries.split_last() {
        None => {
            disk::remove_file(&folders.claimed, &ours_name)?;
        }
        Some((last, others)) => {
            for entry in others {
                link_back(folders, &ours_name, entry)?;
            }
            if !others.is_empty() && store.flushes() {
                // The others must be there for sure before the name that stands for all of them is not.
                fs::fsync(&folders.new)?;
            }
            rename_back(folders, &ours_name, last)?;
        }
    }
    disk::remove_file(&folders.claimed, &journal)?;
    Ok(entries)
}

/// Entries for the lines of a claim that are not settled.
fn unsettled(folders: &Folders, claim: &ClaimName, file_name: &str) -> Result<Vec<EntryName>, Errno> {
    let file = disk::open_file(&folders.claimed, file_name)?;
    let span = claim.entry.span;
    let lines = ReadLines::read(&file, span, span.count)?;
    let Some((first, count)) = claim.part else {
        let settled = journal::read(&folders.claimed, &claim.journal())?;
        return Ok(runs(&claim.entry, &lines, |number| !settled.contains(&number)));
    };
    // It was being split, so nothing of it was handed over yet, and the attempt does not count. What has been given back is
    // not returned twice.
    let whole = EntryName { attempts: claim.entry.attempts.saturating_sub(1), ..claim.entry.clone() };
    let mut given_back = HashSet::new();
    for entry in rest_of(&whole, &lines, first.saturating_sub(span.first), count) {
        if disk::exists(&folders.new, &entry.to_string())? {
            given_back.extend(entry.span.first..entry.span.first + entry.span.count);
        }
    }
    Ok(runs(&whole, &lines, |number| !given_back.contains(&number)))
}

/// Entries like `entry` for each run of consecutive lines that are wanted.
fn runs(entry: &EntryName, lines: &ReadLines, is_wanted: impl Fn(u32) -> bool) -> Vec<EntryName> {
    let mut runs: Vec<EntryName> = Vec::new();
    for (index, number) in (0..lines.len()).zip(entry.span.first..) {
        if !is_wanted(number) {
            continue;
        }
        match runs.last_mut().filter(|run| run.span.first + run.span.count == number) {
            Some(run) => run.span.count += 1,
            None => runs.push(entry.with_span(Span { first: number, count: 1, offset: lines.offset(index) })),
        }
    }
    runs
}
