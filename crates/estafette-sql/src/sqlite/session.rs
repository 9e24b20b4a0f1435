//! What a thread that owns a connection keeps beside it: prepared statements, the subscriptions, how commits are flushed.

use std::{collections::HashMap, rc::Rc};

use estafette_core::{Durability, Error, Pattern, QueueName, Result, Timestamp};

use super::raw::{Database, Statement};
use crate::routes::{QueueId, Routes};

/// A connection in use.
pub(crate) struct Session<'d> {
    database: &'d Database<'d>,
    // By the text's place in the program: every statement is a literal, and hashing its text would cost more.
    statements: HashMap<(*const u8, usize), Rc<Statement<'d>>>,
    routes: Routes,
    flushing: Option<Durability>,
}

impl<'d> Session<'d> {
    pub(crate) fn new(database: &'d Database<'d>) -> Self {
        Self { database, statements: HashMap::new(), routes: Routes::default(), flushing: None }
    }

    /// The statement for `sql`, prepared the first time.
    pub(crate) fn statement(&mut self, sql: &'static str) -> Result<Rc<Statement<'d>>> {
        let place = (sql.as_ptr(), sql.len());
        if let Some(known) = self.statements.get(&place) {
            return Ok(Rc::clone(known));
        }
        let statement = Rc::new(self.database.prepare(sql)?);
        self.statements.insert(place, Rc::clone(&statement));
        Ok(statement)
    }

    /// The texts of the statements that were prepared.
    #[cfg(test)]
    pub(crate) fn known(&self) -> Vec<String> {
        self.statements.values().map(|statement| statement.text()).collect()
    }

    /// The row id the last insert made.
    pub(crate) fn last_insert_rowid(&self) -> i64 {
        self.database.last_insert_rowid()
    }

    /// Begins a transaction that writes, waiting for other processes that do.
    ///
    /// With [`Durability::System`] its commit is not flushed; the next flushed commit flushes it too.
    pub(crate) fn begin(&mut self, durability: Durability) -> Result<()> {
        if self.flushing != Some(durability) {
            let full = durability >= Durability::Disk;
            self.database.execute(if full {
                "PRAGMA synchronous = FULL"
            } else {
                "PRAGMA synchronous = NORMAL"
            })?;
            self.flushing = Some(durability);
        }
        self.statement("BEGIN IMMEDIATE")?.execute(&[]).map(|_rows| ())
    }

    /// Makes what was done since [`begin`](Self::begin) take effect, or nothing of it.
    pub(crate) fn commit(&mut self) -> Result<()> {
        let committed = self.statement("COMMIT").and_then(|commit| commit.execute(&[]));
        if let Err(error) = committed {
            self.roll_back();
            return Err(error);
        }
        Ok(())
    }

    /// Undoes what was done since [`begin`](Self::begin).
    pub(crate) fn roll_back(&mut self) {
        self.routes.forget();
        // Some errors have rolled back already. A rollback itself can only fail by that.
        if self.database.in_transaction()
            && let Err(error) = self.database.execute("ROLLBACK")
        {
            tracing::error!(error = error.report(), "a transaction could not be rolled back");
        }
    }

    /// Writes the log back into the database's file, as far as nobody reads older pages; waits for nobody.
    pub(crate) fn copy_log(&mut self) -> Result<()> {
        self.statement("PRAGMA wal_checkpoint(PASSIVE)")?.query(&[], |_row| Ok(()))
    }

    /// How many pages were written since this was last asked.
    pub(crate) fn pages_written(&self) -> u64 {
        self.database.pages_written()
    }

    /// Writes the log back into the database's file and empties it, as far as nobody reads from it.
    pub(crate) fn checkpoint(&mut self) -> Result<()> {
        self.database.prepare("PRAGMA wal_checkpoint(TRUNCATE)")?.query(&[], |_row| Ok(()))
    }

    /// A number that changes whenever another connection has committed something.
    pub(crate) fn data_version(&mut self) -> Result<i64> {
        Ok(self.statement("PRAGMA data_version")?.integer(&[])?.unwrap_or(0))
    }

    /// Makes [`routes`](Self::routes) those of this transaction.
    pub(crate) fn refresh_routes(&mut self) -> Result<()> {
        let generation =
            self.statement("SELECT generation FROM estafette_schema")?.integer(&[])?.unwrap_or(0);
        if !self.routes.is_current(generation) {
            let mut all = Vec::new();
            let select = self.statement("SELECT pattern, queue FROM estafette_subscription")?;
            select.query(&[], |row| {
                all.push((Pattern::try_from(row.text(0)?)?, row.integer(1)));
                Ok(())
            })?;
            self.routes.replace(generation, all);
        }
        Ok(())
    }

    /// The subscriptions as they were last read.
    pub(crate) fn routes(&mut self) -> &mut Routes {
        &mut self.routes
    }

    /// Says that queues or subscriptions changed.
    pub(crate) fn change_generation(&mut self) -> Result<()> {
        self.statement("UPDATE estafette_schema SET generation = generation + 1")?.execute(&[])?;
        Ok(())
    }

    /// The row id of a queue, if there is one of that name.
    pub(crate) fn find_queue(&mut self, name: &QueueName) -> Result<Option<QueueId>> {
        let select = self.statement("SELECT id FROM estafette_queue WHERE name = ?1")?;
        select.integer(&[name.as_str().into()])
    }

    /// The row id of a queue that must exist.
    pub(crate) fn queue(&mut self, name: &QueueName) -> Result<QueueId> {
        self.find_queue(name)?.ok_or_else(|| Error::no_queue(name))
    }
}

/// The time, by the clock all processes of this machine share; a database in a file has no clock of its own.
pub(crate) fn now() -> Timestamp {
    Timestamp::now()
}

/// A number as SQLite keeps it.
pub(crate) fn integer(number: impl TryInto<i64>) -> i64 {
    number.try_into().unwrap_or(i64::MAX)
}

/// A count that SQLite kept.
pub(crate) fn count(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}
