//! What the children write down, and what it must add up to.
//!
//! Each child appends lines, `<microseconds> <id>`, to files of its own. What was written before a SIGKILL stays: the system
//! has it. A kill in the middle of a write leaves a beginning of it, whose last line may be cut short and does not count.

use std::{
    collections::{HashMap, HashSet},
    fs::{File, OpenOptions},
    io::Write,
    path::Path,
};

use anyhow::{Context as _, Result, ensure};

use crate::roles::Drained;

/// Appends to one file of the ledger.
pub(crate) struct Pen {
    file: File,
}

impl Pen {
    pub(crate) fn open(dir: &Path, what: &str) -> Result<Self> {
        let path = dir.join(format!("{what}-{}.ledger", std::process::id()));
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        Ok(Self { file })
    }

    /// Microseconds on the clock all processes of this machine share.
    pub(crate) fn now() -> i64 {
        estafette::Timestamp::now().as_micros()
    }

    /// Writes ids down as of now and returns how many.
    pub(crate) fn write<T: AsRef<str>>(&mut self, ids: impl Iterator<Item = T>) -> Result<u64> {
        self.write_at(Self::now(), ids)
    }

    pub(crate) fn write_at<T: AsRef<str>>(&mut self, at: i64, ids: impl Iterator<Item = T>) -> Result<u64> {
        let mut lines = Vec::new();
        let mut count = 0;
        for id in ids {
            writeln!(lines, "{at} {}", id.as_ref())?;
            count += 1;
        }
        self.file.write_all(&lines)?;
        Ok(count)
    }
}

/// How a transport moves a message to the retries or the dead letters, or back into the queue.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moves {
    /// All at once.
    InOneStep,
    /// Stored there first, taken away here after.
    InTwoSteps,
}

/// The largest batch a child publishes: as many messages may share a file.
pub(crate) const BATCH_MAX: u64 = 200;

impl Moves {
    /// How many acknowledged messages may come again when so many processes were killed.
    ///
    /// Giving part of a file back takes two steps, microseconds apart: a kill in between leaves that part in both places.
    /// One in fifty kills is far more than are seen to do that.
    fn again_max(self, killed: u32) -> u64 {
        match self {
            Self::InOneStep => 0,
            Self::InTwoSteps => BATCH_MAX * u64::from(1 + killed / 50),
        }
    }
}

/// Everything that was written down.
pub(crate) struct Ledger {
    stored: HashSet<String>,
    intended: HashSet<String>,
    /// Messages that were being retried or rejected.
    moved: HashSet<String>,
    /// When each acknowledged message was.
    acknowledged: HashMap<String, i64>,
    /// When each delivery was asked for.
    taken: Vec<(String, i64)>,
}

impl Ledger {
    pub(crate) fn read(dir: &Path) -> Result<Self> {
        let mut ledger = Self {
            stored: HashSet::new(),
            intended: HashSet::new(),
            moved: HashSet::new(),
            acknowledged: HashMap::new(),
            taken: Vec::new(),
        };
        for entry in std::fs::read_dir(dir)? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
            if !name.ends_with(".ledger") {
                continue;
            }
            let text = std::fs::read_to_string(&path)?;
            for line in text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')) {
                let (at, id) = line.split_once(' ').with_context(|| format!("{name}: {line:?}"))?;
                ledger.note(&name, at.parse()?, id.to_owned());
            }
        }
        Ok(ledger)
    }

    fn note(&mut self, file: &str, at: i64, id: String) {
        match file.split('-').next() {
            Some("stored") => {
                self.stored.insert(id);
            }
            Some("intended") => {
                self.intended.insert(id);
            }
            Some("moved") => {
                self.moved.insert(id);
            }
            Some("acknowledged") => {
                self.acknowledged.insert(id, at);
            }
            _ => self.taken.push((id, at)),
        }
    }

    /// Fails when a stored message is nowhere, or an acknowledged one was delivered again.
    ///
    /// Where moving a message (a retry, a dead letter) takes two steps, a kill in between leaves it in both places, and one
    /// may be acknowledged before the other comes: `moves` says whether that is so.
    pub(crate) fn check(&self, left: &Drained, moves: Moves, killed: u32) -> Result<()> {
        let accounted =
            |id: &String| self.intended.contains(id) || left.waiting.contains(id) || left.dead.contains(id);
        let lost: Vec<&String> = self.stored.iter().filter(|id| !accounted(id)).collect();
        let first = lost.first();
        ensure!(
            first.is_none(),
            "{} of {} messages are lost, such as {first:?}",
            lost.len(),
            self.stored.len()
        );
        let may_be_in_two_places = |id: &String| moves == Moves::InTwoSteps && self.moved.contains(id);
        let acknowledged_at = |id: &String| self.acknowledged.get(id).filter(|_| !may_be_in_two_places(id));
        let delivered =
            self.taken.iter().filter(|(id, asked_at)| acknowledged_at(id).is_some_and(|at| at <= asked_at));
        let came_back = left.waiting.iter().filter(|id| acknowledged_at(id).is_some());
        let again: HashSet<&String> = delivered.map(|(id, _)| id).chain(came_back).collect();
        ensure!(
            again.len() as u64 <= moves.again_max(killed),
            "{} messages were acknowledged and came again, such as {:?}",
            again.len(),
            again.iter().next()
        );
        ensure!(!self.stored.is_empty() && !self.acknowledged.is_empty(), "nothing happened at all");
        Ok(())
    }

    pub(crate) fn published(&self) -> usize {
        self.stored.len()
    }

    pub(crate) fn acknowledged(&self) -> usize {
        self.acknowledged.len()
    }

    /// How many deliveries were not the first of their message.
    pub(crate) fn delivered_again(&self) -> usize {
        let distinct: HashSet<&String> = self.taken.iter().map(|(id, _)| id).collect();
        self.taken.len() - distinct.len()
    }
}
