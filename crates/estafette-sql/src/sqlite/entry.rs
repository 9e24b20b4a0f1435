//! Entries: runs of messages that share their fate, and how they are cut when they do not.

use estafette_core::Result;

use super::{raw::Row, session::Session};
use crate::routes::QueueId;

/// The states of an entry, as stored.
pub(crate) mod state {
    /// Never handed over, or put back as if it never was.
    pub(crate) const FRESH: i64 = 0;
    /// Handed over before; waits for its turn or for a retry.
    pub(crate) const STARTED: i64 = 1;
    /// A consumer holds it, until it is due.
    pub(crate) const LEASED: i64 = 2;
}

/// A row of `estafette_entry`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) queue: QueueId,
    pub(crate) due: i64,
    pub(crate) block: i64,
    pub(crate) first: i64,
    pub(crate) last: i64,
    pub(crate) state: i64,
    pub(crate) attempt: i64,
    pub(crate) place: Option<i64>,
    pub(crate) key: Option<Box<str>>,
    pub(crate) first_failed_at: Option<i64>,
    pub(crate) last_error: Option<Box<str>>,
}

/// The columns [`Entry::read`] expects, in its order.
macro_rules! entry_columns {
    () => {
        "e.queue, e.due, e.block, e.first, e.last, e.state, e.attempt, e.place, e.partition_key, e.first_failed_at,
            e.last_error"
    };
}
pub(crate) use entry_columns;

const INSERT: &str =
    "INSERT INTO estafette_entry (queue, due, block, first, last, state, attempt, place, partition_key,
    first_failed_at, last_error) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)";
const DELETE: &str =
    "DELETE FROM estafette_entry WHERE queue = ?1 AND due = ?2 AND block = ?3 AND first = ?4";

/// The leased run that holds a line, if any does: the last one that begins at or before it.
const FIND_LEASED: &str = concat!(
    "SELECT ",
    entry_columns!(),
    " FROM estafette_entry e WHERE e.queue = ?1 AND e.due = ?2 AND e.block = ?3 AND e.first <= ?4
    ORDER BY e.first DESC LIMIT 1"
);

impl Entry {
    pub(crate) fn read(row: &Row<'_>) -> Result<Self> {
        Ok(Self {
            queue: row.integer(0),
            due: row.integer(1),
            block: row.integer(2),
            first: row.integer(3),
            last: row.integer(4),
            state: row.integer(5),
            attempt: row.integer(6),
            place: row.optional_integer(7),
            key: row.optional_text(8)?.map(Into::into),
            first_failed_at: row.optional_integer(9),
            last_error: row.optional_text(10)?.map(Into::into),
        })
    }

    /// How many messages it stands for.
    pub(crate) fn count(&self) -> i64 {
        self.last - self.first + 1
    }

    /// The same for fewer lines.
    pub(crate) fn run(&self, first: i64, last: i64) -> Self {
        Self { first, last, ..self.clone() }
    }

    /// Where it goes when it is put back.
    pub(crate) fn place(&self) -> i64 {
        self.place.unwrap_or(self.due)
    }

    /// The leased entry that holds a line, if the lease that ends at `due` still stands.
    pub(crate) fn find_leased(
        session: &mut Session<'_>,
        queue: QueueId,
        due: i64,
        (block, line): (i64, i64),
    ) -> Result<Option<Self>> {
        let mut found = None;
        session.statement(FIND_LEASED)?.query(&[queue, due, block, line].map(Into::into), |row| {
            found = Some(Self::read(row)?);
            Ok(())
        })?;
        Ok(found.filter(|entry: &Self| entry.state == state::LEASED && entry.last >= line))
    }

    pub(crate) fn insert(&self, session: &mut Session<'_>) -> Result<()> {
        session.statement(INSERT)?.execute(&[
            self.queue.into(),
            self.due.into(),
            self.block.into(),
            self.first.into(),
            self.last.into(),
            self.state.into(),
            self.attempt.into(),
            self.place.into(),
            self.key.as_deref().into(),
            self.first_failed_at.into(),
            self.last_error.as_deref().into(),
        ])?;
        Ok(())
    }

    pub(crate) fn delete(&self, session: &mut Session<'_>) -> Result<()> {
        let place = [self.queue, self.due, self.block, self.first];
        session.statement(DELETE)?.execute(&place.map(Into::into))?;
        Ok(())
    }

    /// Takes the lines from `first` to `last` out, which must be among its own; the rest stays as it is.
    pub(crate) fn cut(&self, session: &mut Session<'_>, first: i64, last: i64) -> Result<Self> {
        self.delete(session)?;
        if self.first < first {
            self.run(self.first, first - 1).insert(session)?;
        }
        if last < self.last {
            self.run(last + 1, self.last).insert(session)?;
        }
        Ok(self.run(first, last))
    }
}
