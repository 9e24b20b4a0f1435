//! Attempts that ended with their process.
//!
//! A server that gets a job back says nothing of it to the next worker, and a job cannot be changed without submitting it again.
//! So each receiver writes down what it hands over, before it does, in a file of its own that it holds locked. A lock
//! that can be had belongs to a process that has died: its file then counts one attempt for every message in it, for every
//! receiver of the queue that uses the same directory. What was settled does no harm there: a message that was submitted again
//! has other notes, and anything else never comes back.
//!
//! Files are written without a flush: they survive the end of any process, not a power cut. Those of the dead are kept for a
//! day.

use std::{
    collections::HashMap,
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use estafette_core::{Envelope, MessageId, QueueName};

use crate::{names::sum, payload::REDRIVEN};

/// How long the files of the dead are kept.
const KEPT: Duration = Duration::from_secs(24 * 60 * 60);

/// From this size on a file is written anew as soon as nothing is out.
const BYTES_IDLE: u64 = 64 << 10;

/// From this size on a file is written anew whatever is out.
const BYTES_MAX: u64 = 4 << 20;

/// The ends of the names of files: of a receiver that begins, lives, and has died.
const NEW: &str = "new";
const LIVE: &str = "live";
const LOST: &str = "lost";

/// What a line is about: a message, as it was last written.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Written {
    id: MessageId,
    attempts: u32,
    redriven: u32,
}

impl Written {
    pub(crate) fn of(envelope: &Envelope, attempts: u32) -> Self {
        let redriven = envelope.headers.get(REDRIVEN).and_then(|text| text.parse().ok()).unwrap_or(0);
        Self { id: envelope.id.clone(), attempts, redriven }
    }
}

pub(crate) struct Journal {
    folder: PathBuf,
    path: PathBuf,
    file: File,
    bytes: u64,
    /// When the folder was last read, as the folder says.
    seen: Option<(i64, i64)>,
    /// The files of receivers that lived when last looked.
    others: Vec<(PathBuf, File)>,
    /// How often each message was handed over by receivers that died.
    lost: HashMap<Written, i32>,
}

impl Journal {
    /// Begins the journal of one receiver of `queue`.
    ///
    /// # Errors
    ///
    /// Those of the file system, and a directory that belongs to another user.
    pub(crate) fn begin(state: &Path, queue: &QueueName) -> io::Result<Self> {
        let folder = state.join(escaped(queue.as_str()));
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        let ours = fs::metadata("/proc/self").map(|metadata| metadata.uid());
        if ours.is_ok_and(|ours| fs::metadata(state).is_ok_and(|metadata| metadata.uid() != ours)) {
            let sentence = format!("{} belongs to another user", state.display());
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, sentence));
        }
        let (path, file) = create(&folder)?;
        Ok(Self { folder, path, file, bytes: 0, seen: None, others: Vec::new(), lost: HashMap::new() })
    }

    /// How often a message was handed over by receivers that died.
    pub(crate) fn lost(&self, written: &Written) -> u32 {
        self.lost.get(written).copied().and_then(|count| u32::try_from(count).ok()).unwrap_or(0)
    }

    /// Finds out who has died since the last call.
    pub(crate) fn look(&mut self) -> io::Result<()> {
        let mut died = false;
        for (path, file) in &self.others {
            if try_lock(file)? {
                died = true;
                match fs::rename(path, path.with_extension(LOST)) {
                    // Another receiver was quicker.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    renamed => renamed?,
                }
            }
        }
        let metadata = fs::metadata(&self.folder)?;
        let now = (metadata.mtime(), metadata.mtime_nsec());
        if died || self.seen != Some(now) {
            self.seen = Some(now);
            self.read_folder()?;
        }
        Ok(())
    }

    fn read_folder(&mut self) -> io::Result<()> {
        self.others.clear();
        self.lost.clear();
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            if path == self.path || path.extension().is_some_and(|end| end == NEW) {
                continue;
            }
            match self.read_file(path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                read => read?,
            }
        }
        Ok(())
    }

    fn read_file(&mut self, path: PathBuf) -> io::Result<()> {
        let is_lost = path.extension().is_some_and(|end| end == LOST);
        let file = File::open(&path)?;
        if !is_lost && !try_lock(&file)? {
            self.others.push((path, file));
            return Ok(());
        }
        let path = if is_lost {
            path
        } else {
            let lost = path.with_extension(LOST);
            fs::rename(&path, &lost)?;
            lost
        };
        let age = SystemTime::now().duration_since(fs::metadata(&path)?.modified()?);
        if age.is_ok_and(|age| age > KEPT) {
            return fs::remove_file(&path);
        }
        for line in fs::read_to_string(&path)?.lines() {
            if let Some((written, change)) = parse(line) {
                *self.lost.entry(written).or_default() += change;
            }
        }
        Ok(())
    }

    /// Notes that messages are handed over, or were given back without spending an attempt.
    pub(crate) fn note<'a>(
        &mut self,
        notes: impl IntoIterator<Item = (&'a Written, Change)>,
    ) -> io::Result<()> {
        let mut lines = String::new();
        for (written, change) in notes {
            let sign = match change {
                Change::Handed => '+',
                Change::Released => '-',
            };
            lines += &format!("{sign} {} {} {}\n", written.attempts, written.redriven, written.id);
        }
        self.file.write_all(lines.as_bytes())?;
        self.bytes += lines.len() as u64;
        Ok(())
    }

    /// Whether it is time to write only what is still out.
    pub(crate) fn is_long(&self, nothing_is_out: bool) -> bool {
        self.bytes > if nothing_is_out { BYTES_IDLE } else { BYTES_MAX }
    }

    /// Begins a new file with what is still out.
    pub(crate) fn renew<'a>(&mut self, out: impl IntoIterator<Item = &'a Written>) -> io::Result<()> {
        let (path, file) = create(&self.folder)?;
        let old = std::mem::replace(&mut self.path, path);
        self.file = file;
        self.bytes = 0;
        self.note(out.into_iter().map(|written| (written, Change::Handed)))?;
        fs::remove_file(old)
    }

    /// Counts everything in this file as lost, since the connection was, and begins a new one.
    pub(crate) fn lose(&mut self) -> io::Result<()> {
        let (path, file) = create(&self.folder)?;
        let old = std::mem::replace(&mut self.path, path);
        self.file = file;
        self.bytes = 0;
        fs::rename(&old, old.with_extension(LOST))
    }

    /// Ends the journal of a receiver that has settled everything.
    pub(crate) fn finish(self) -> io::Result<()> {
        fs::remove_file(&self.path)?;
        // The last one turns off the light.
        drop(fs::remove_dir(&self.folder));
        Ok(())
    }
}

/// What a line says of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Handed,
    Released,
}

fn create(folder: &Path) -> io::Result<(PathBuf, File)> {
    // Somebody who ended just now may have removed the folder.
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let path = folder.join(format!("{}-{:016x}.{NEW}", std::process::id(), fastrand::u64(..)));
    let file = OpenOptions::new().append(true).create_new(true).mode(0o600).open(&path)?;
    file.lock()?;
    // Only now that it is locked does it look alive.
    let live = path.with_extension(LIVE);
    fs::rename(path, &live)?;
    Ok((live, file))
}

fn try_lock(file: &File) -> io::Result<bool> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

fn parse(line: &str) -> Option<(Written, i32)> {
    let mut words = line.splitn(4, ' ');
    let change = match words.next()? {
        "+" => 1,
        "-" => -1,
        _ => return None,
    };
    let (attempts, redriven) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    Some((Written { id: words.next()?.parse().ok()?, attempts, redriven }, change))
}

/// A queue's name as the name of a directory: everything but letters, digits, `-`, `_` and inner dots as `%XX`.
fn escaped(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.') {
            out.push(char::from(byte));
        } else {
            out += &format!("%{byte:02X}");
        }
    }
    // A directory's name has at most 255 bytes: the end of a long one is replaced by a sum of it all.
    if out.len() > 200 {
        out.truncate(180);
        out += &format!("~{:016x}", sum(name));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(id: &str, attempts: u32) -> Written {
        Written { id: id.parse().unwrap(), attempts, redriven: 0 }
    }

    #[test]
    fn the_dead_count_and_the_living_do_not() {
        let state = tempfile::tempdir().unwrap();
        let queue = QueueName::try_from("a/b").unwrap();
        let mut one = Journal::begin(state.path(), &queue).unwrap();
        let mut two = Journal::begin(state.path(), &queue).unwrap();
        let (first, second) = (written("x", 0), written("y", 2));
        two.note([(&first, Change::Handed), (&second, Change::Handed), (&second, Change::Released)]).unwrap();
        one.look().unwrap();
        assert_eq!(one.lost(&first), 0);
        // As when its process ends: the lock goes, the file stays.
        drop(two);
        one.look().unwrap();
        assert_eq!((one.lost(&first), one.lost(&second)), (1, 0));
        assert_eq!(one.lost(&written("x", 1)), 0, "another turn of the same message");
        let mut three = Journal::begin(state.path(), &queue).unwrap();
        three.look().unwrap();
        assert_eq!(three.lost(&first), 1);
    }

    #[test]
    fn a_renewed_file_keeps_what_is_out() {
        let state = tempfile::tempdir().unwrap();
        let queue = QueueName::try_from("q").unwrap();
        let mut one = Journal::begin(state.path(), &queue).unwrap();
        let (kept, gone) = (written("kept", 0), written("gone", 0));
        one.note([(&kept, Change::Handed), (&gone, Change::Handed)]).unwrap();
        one.renew([&kept]).unwrap();
        drop(one);
        let mut two = Journal::begin(state.path(), &queue).unwrap();
        two.look().unwrap();
        assert_eq!((two.lost(&kept), two.lost(&gone)), (1, 0));
    }
}
