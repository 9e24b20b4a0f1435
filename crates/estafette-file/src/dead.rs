//! Dead letters: an entry each in `dead/`, by time of death.

use estafette_core::{DeadLetter, DeadQuery, Result};

use crate::{
    Shared,
    claim::Folders,
    disk, error, line,
    lines::ReadLines,
    name::EntryName,
    queues::{Queue, Queues},
    sheet::{Folder, Slot},
    writer::Lines,
};

use std::sync::Arc;

/// So many are put back with one flush.
const REDRIVEN_AT_ONCE: usize = 500;

/// The header that counts how often a message was put back.
const REDRIVEN: &str = "redriven";

/// A dead letter and its file.
pub(crate) struct Found {
    file_name: String,
    pub(crate) letter: DeadLetter,
}

/// The dead letters a query means, oldest first.
pub(crate) fn find(folders: &Folders, queue: &Queue, query: &DeadQuery) -> Result<Vec<Found>> {
    let failed = |errno| error::io("reading the dead letters", errno);
    let mut names = disk::names(&folders.dead).map_err(failed)?;
    names.sort_unstable();
    let letters = names.into_iter().filter_map(|name| read(folders, queue, name));
    let meant = letters.filter(|found| query.matches(&found.letter));
    Ok(meant.skip(query.skip).take(query.limit.unwrap_or(usize::MAX)).collect())
}

fn read(folders: &Folders, queue: &Queue, file_name: String) -> Option<Found> {
    let entry = EntryName::parse(&file_name)?;
    let file = disk::open_file(&folders.dead, &file_name).ok()?;
    let lines = ReadLines::read(file, entry.span, 1).ok()?;
    match line::dead_letter(lines.get(0), &queue.name) {
        Ok(letter) => Some(Found { file_name, letter }),
        Err(error) => {
            let queue = queue.name.as_str();
            tracing::warn!(queue, file = file_name, error = error.report(), "a dead letter does not decode");
            None
        }
    }
}

/// Deletes dead letters and returns how many were there.
pub(crate) fn purge(folders: &Folders, found: &[Found]) -> Result<u64> {
    let mut count = 0;
    for Found { file_name, .. } in found {
        let removed = disk::remove_file(&folders.dead, file_name);
        count += u64::from(removed.map_err(|errno| error::io("purging dead letters", errno))?);
    }
    Ok(count)
}

/// Puts dead letters back: stored anew first, then deleted.
pub(crate) async fn redrive(
    shared: &Shared,
    queue: &Arc<Queue>,
    folders: &Folders,
    found: Vec<Found>,
) -> Result<u64> {
    let queues = Queues::from([Arc::clone(queue)]);
    let mut found = found.into_iter().peekable();
    let mut count = 0;
    while found.peek().is_some() {
        let mut some: Vec<Found> = found.by_ref().take(REDRIVEN_AT_ONCE).collect();
        let mut lines = Lines::default();
        for Found { letter, .. } in &mut some {
            let times = letter.envelope.headers.get(REDRIVEN).and_then(|text| text.parse::<u32>().ok());
            letter.envelope.headers.insert(REDRIVEN, &times.map_or(1, |times| times + 1).to_string())?;
            line::write(&letter.envelope, &mut lines.bytes);
            let queues = Arc::clone(&queues);
            lines.end_line(Slot { queues, folder: Folder::New, due: None, retrying: false, key: None });
        }
        let stored = shared.writer.store(lines).await;
        let (stored, failed): (Vec<_>, Vec<_>) =
            some.into_iter().zip(stored).partition(|(_, result)| result.is_ok());
        let stored: Vec<Found> = stored.into_iter().map(|(found, _)| found).collect();
        count += purge(folders, &stored)?;
        if let Some((_, Err(error))) = failed.into_iter().next() {
            return Err(error);
        }
    }
    Ok(count)
}
