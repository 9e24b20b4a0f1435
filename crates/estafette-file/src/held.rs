//! The claims this process holds on a queue: which lines are out, and until when.
//!
//! On disk a lease is a claim's, in its name. Here each line has its own, so that one delivery's lease can end while another's
//! of the same file is extended: the file's is the latest, and lines whose own has ended are put back by us.

use std::{
    collections::HashMap,
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use estafette_core::{Error, QueueName, Result, Ticket, Timestamp};
use rustix::{fs, io::Errno};

use crate::{
    claim::{Folders, link_back, rename_back},
    disk, error, journal,
    name::{ClaimName, EntryName, Span},
    store::Store,
};

/// What a line's hand-over is about.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) number: u32,
    /// Where in the file it begins.
    pub(crate) offset: u64,
    /// Which hand-over this is.
    pub(crate) attempt: u32,
    pub(crate) first_failed_at: Option<String>,
    /// The hash of its partition key.
    pub(crate) key: Option<u32>,
    pub(crate) ends_at: Instant,
    pub(crate) is_open: bool,
}

#[derive(Debug)]
pub(crate) struct Claim {
    name: ClaimName,
    file_name: String,
    lines: Vec<Line>,
    open: usize,
    journal: Option<OwnedFd>,
}

/// Why lines that are put back come again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PutBack {
    /// When; at their old place when none.
    pub(crate) due: Option<Timestamp>,
    /// Whether the hand-over counts.
    pub(crate) counts: bool,
}

/// The claims, and where they are.
#[derive(Debug, Default)]
pub(crate) struct Held {
    claims: HashMap<u64, Claim>,
    /// No lease ends before this.
    ends_from: Option<Instant>,
}

/// The disk side of a queue, as the functions here need it.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) store: &'a Store,
    pub(crate) folders: &'a Folders,
    pub(crate) queue: &'a QueueName,
}

impl Place<'_> {
    pub(crate) fn lost(&self) -> Error {
        error::lease_lost(self.queue)
    }
}

impl Held {
    pub(crate) fn contains(&self, claim: u64) -> bool {
        self.claims.contains_key(&claim)
    }

    pub(crate) fn insert(&mut self, name: ClaimName, lines: Vec<Line>) {
        let ends = lines.iter().map(|line| line.ends_at).min();
        self.ends_from = self.ends_from.into_iter().chain(ends).min();
        let (file_name, open) = (name.to_string(), lines.len());
        self.claims.insert(name.number, Claim { name, file_name, lines, open, journal: None });
    }

    /// When the next lease ends, at the earliest.
    pub(crate) fn next_end(&self) -> Option<Instant> {
        self.ends_from
    }

    /// The line a ticket is for, if its lease still holds.
    pub(crate) fn line(&self, ticket: Ticket) -> Option<&Line> {
        let line = self.claims.get(&ticket.fence)?.lines.get(usize::try_from(ticket.key).ok()?)?;
        (line.is_open && line.ends_at > Instant::now()).then_some(line)
    }

    /// The place in the queue of a line's message.
    pub(crate) fn due(&self, ticket: Ticket) -> Option<Timestamp> {
        self.claims.get(&ticket.fence).map(|claim| claim.name.entry.due)
    }

    /// The lines of a claim that are not settled; none when it is not held.
    pub(crate) fn open_lines(&self, claim: u64) -> Option<Vec<u32>> {
        let lines = self.claims.get(&claim)?.lines.iter();
        Some(lines.filter(|line| line.is_open).map(|line| line.number).collect())
    }

    /// A line of a claim as it is stored.
    pub(crate) fn read(&self, place: Place<'_>, ticket: Ticket) -> Result<Vec<u8>> {
        let (Some(line), Some(claim)) = (self.line(ticket), self.claims.get(&ticket.fence)) else {
            return Err(place.lost());
        };
        let span = Span { first: line.number, count: 1, offset: line.offset };
        let read = disk::open_file(&place.folders.claimed, &claim.file_name)
            .and_then(|file| crate::lines::ReadLines::read(file, span, 1));
        match read {
            Ok(lines) => Ok(lines.get(0).to_vec()),
            Err(Errno::NOENT) => Err(place.lost()),
            Err(errno) => Err(error::io("reading a claimed message again", errno)),
        }
    }

    /// Lines are settled: they never come again.
    pub(crate) fn finish(&mut self, place: Place<'_>, claim: u64, lines: &[usize]) -> Result<()> {
        let Some(found) = self.claims.get_mut(&claim) else { return Err(place.lost()) };
        match found.finish(place, lines) {
            Ok(true) if found.open == 0 => {
                self.claims.remove(&claim);
                Ok(())
            }
            Ok(true) => Ok(()),
            Ok(false) => {
                self.claims.remove(&claim);
                Err(place.lost())
            }
            Err(errno) => Err(error::io("noting that messages are settled", errno)),
        }
    }

    /// Lines come again: the names of their new entries.
    pub(crate) fn put_back(
        &mut self,
        place: Place<'_>,
        claim: u64,
        lines: &[usize],
        how: PutBack,
    ) -> Result<Vec<EntryName>> {
        let failed = |errno| error::io("putting messages back", errno);
        let Some(found) = self.claims.get(&claim) else { return Err(place.lost()) };
        let entries = found.entries(lines, how);
        if let ([entry], true) = (&*entries, lines.len() == found.open) {
            let is_back = rename_back(place.folders, &found.file_name, entry).map_err(failed)?;
            if let Some(found) = self.claims.remove(&claim).filter(|found| found.journal.is_some()) {
                disk::remove_file(&place.folders.claimed, &found.name.journal()).map_err(failed)?;
            }
            return if is_back { Ok(entries) } else { Err(place.lost()) };
        }
        for entry in &entries {
            match link_back(place.folders, &found.file_name, entry) {
                Ok(()) => {}
                Err(Errno::NOENT) => {
                    self.claims.remove(&claim);
                    return Err(place.lost());
                }
                Err(errno) => return Err(failed(errno)),
            }
        }
        place.store.flush_dir(&place.folders.new)?;
        self.finish(place, claim, lines)?;
        Ok(entries)
    }

    /// Makes the leases of lines end `lease` from now.
    pub(crate) fn extend(
        &mut self,
        place: Place<'_>,
        claim: u64,
        lines: &[usize],
        lease: Duration,
    ) -> Result<()> {
        let Some(found) = self.claims.get_mut(&claim) else { return Err(place.lost()) };
        let ends_at = Instant::now() + lease;
        for &line in lines {
            if let Some(line) = found.lines.get_mut(line) {
                line.ends_at = ends_at;
            }
        }
        self.ends_from = self.ends_from.map(|from| from.min(ends_at));
        match found.lease_until(place) {
            Ok(true) => Ok(()),
            Ok(false) => {
                self.claims.remove(&claim);
                Err(place.lost())
            }
            Err(errno) => Err(error::io("extending a lease", errno)),
        }
    }

    /// Puts back the lines whose lease has ended.
    pub(crate) fn put_back_ended(&mut self, place: Place<'_>) -> Vec<EntryName> {
        let now = Instant::now();
        if self.ends_from.is_none_or(|from| from > now) {
            return Vec::new();
        }
        let ended: Vec<(u64, Vec<usize>)> =
            self.claims.iter().map(|(&number, claim)| (number, claim.ended(now))).collect();
        let mut entries = Vec::new();
        for (claim, lines) in ended.into_iter().filter(|(_, lines)| !lines.is_empty()) {
            match self.put_back(place, claim, &lines, PutBack { due: None, counts: true }) {
                Ok(put_back) => entries.extend(put_back),
                // Lost means that somebody else was quicker; otherwise the next look tries again.
                Err(error) => tracing::debug!(error = error.report(), "an ended lease was not put back"),
            }
        }
        let open = self.claims.values().flat_map(|claim| claim.lines.iter().filter(|line| line.is_open));
        self.ends_from = open.map(|line| line.ends_at).min();
        entries
    }
}

impl Claim {
    fn ended(&self, now: Instant) -> Vec<usize> {
        let has_ended = |line: &Line| line.is_open && line.ends_at <= now;
        self.lines.iter().enumerate().filter(|(_, line)| has_ended(line)).map(|(index, _)| index).collect()
    }

    /// False when the claim is not ours any more.
    fn finish(&mut self, place: Place<'_>, lines: &[usize]) -> Result<bool, Errno> {
        let claimed = &place.folders.claimed;
        if lines.len() == self.open {
            if !disk::remove_file(claimed, &self.file_name)? {
                return Ok(false);
            }
            if self.journal.is_some() {
                disk::remove_file(claimed, &self.name.journal())?;
            }
        } else {
            if !disk::exists(claimed, &self.file_name)? {
                return Ok(false);
            }
            let numbers = lines.iter().filter_map(|&line| self.lines.get(line)).map(|line| line.number);
            let records = journal::records(numbers);
            let journal = match self.journal.take() {
                Some(journal) => journal,
                None => disk::open_append(claimed, &self.name.journal())?,
            };
            disk::write_all(&journal, &records)?;
            self.journal = Some(journal);
            // Whoever takes the claim renames it first and reads the journal then: when the name is still there now, the
            // records will be seen.
            if !disk::exists(claimed, &self.file_name)? {
                return Ok(false);
            }
        }
        for &line in lines {
            if let Some(line) = self.lines.get_mut(line).filter(|line| line.is_open) {
                line.is_open = false;
                self.open -= 1;
            }
        }
        Ok(true)
    }

    /// Gives the file the lease of the line that is held longest; false when the claim is not ours any more.
    fn lease_until(&mut self, place: Place<'_>) -> Result<bool, Errno> {
        let now = Instant::now();
        let open = self.lines.iter().filter(|line| line.is_open);
        let longest = open.map(|line| line.ends_at.saturating_duration_since(now)).max().unwrap_or_default();
        let name = ClaimName { until: place.store.clock.now() + longest, ..self.name.clone() };
        let file_name = name.to_string();
        let claimed = &place.folders.claimed;
        match fs::renameat(claimed, &*self.file_name, claimed, &*file_name) {
            Ok(()) => {
                (self.name, self.file_name) = (name, file_name);
                Ok(true)
            }
            Err(Errno::NOENT) => Ok(false),
            Err(errno) => Err(errno),
        }
    }

    /// Entries for lines that come again, consecutive ones together.
    fn entries(&self, lines: &[usize], how: PutBack) -> Vec<EntryName> {
        let entry = EntryName {
            due: how.due.unwrap_or(self.name.entry.due),
            attempts: self.name.entry.attempts - u32::from(!how.counts),
            retrying: how.due.is_some(),
            ..self.name.entry.clone()
        };
        let mut lines: Vec<&Line> = lines.iter().filter_map(|&line| self.lines.get(line)).collect();
        lines.sort_by_key(|line| line.number);
        let mut entries: Vec<EntryName> = Vec::new();
        for line in lines {
            // Waiting for a retry, the key must be known by the name.
            let key = if how.due.is_some() { line.key } else { entry.key };
            let is_next =
                |run: &&mut EntryName| run.span.first + run.span.count == line.number && run.key == key;
            match entries.last_mut().filter(is_next) {
                Some(run) => run.span.count += 1,
                None => {
                    let span = Span { first: line.number, count: 1, offset: line.offset };
                    entries.push(EntryName { key, ..entry.with_span(span) });
                }
            }
        }
        entries
    }
}
