//! Prepared statements on SQLite's C interface: the only unsafe code of this crate.
//!
//! sqlx hands every execution to a thread of its own and every row back through a channel, value by value: several
//! microseconds for work that takes one. So sqlx opens and owns the connection, and the hot statements run here, on the
//! handle [`SqliteConnection::lock_handle`](sqlx::sqlite::SqliteConnection::lock_handle) lends.
//!
//! What keeps it sound: a [`Database`] borrows the locked handle, a [`Statement`] borrows the [`Database`], and neither
//! leaves its thread. Values are bound for one execution only, inside [`Statement::query_while`], which resets the statement before
//! it returns; so SQLite never sees a borrow that has ended.
#![allow(unsafe_code, reason = "the C interface; see the module's documentation")]

use std::{
    cell::Cell,
    ffi::{CStr, c_int},
    marker::PhantomData,
    ptr::{self, NonNull},
    slice,
};

use estafette_core::{Error, ErrorKind, Result};
use libsqlite3_sys as ffi;
use sqlx::sqlite::LockedSqliteHandle;

use super::error;

/// A connection, for as long as its handle is locked.
pub(crate) struct Database<'h> {
    handle: NonNull<ffi::sqlite3>,
    // Borrows the locked handle; the pointer keeps it from other threads.
    borrowed: PhantomData<&'h mut ()>,
}

impl<'h> Database<'h> {
    pub(crate) fn new(handle: &'h mut LockedSqliteHandle<'_>) -> Self {
        Self { handle: handle.as_raw_handle(), borrowed: PhantomData }
    }

    /// Compiles the one statement in `sql`, to be executed many times.
    pub(crate) fn prepare(&self, sql: &str) -> Result<Statement<'_>> {
        let length = c_int::try_from(sql.len()).map_err(|_too_long| ErrorKind::InvalidInput)?;
        let mut pointer = ptr::null_mut();
        // SAFETY: the handle is open and locked for `'h`; `sql` is readable for `length` bytes; `pointer` is writable.
        let code = unsafe {
            ffi::sqlite3_prepare_v3(
                self.handle.as_ptr(),
                sql.as_ptr().cast(),
                length,
                ffi::SQLITE_PREPARE_PERSISTENT,
                &raw mut pointer,
                ptr::null_mut(),
            )
        };
        self.check(code)?;
        let Some(pointer) = NonNull::new(pointer) else {
            return Err(Error::new(ErrorKind::Engine, format!("no statement in {sql:?}")));
        };
        // SAFETY: the statement was just made.
        let parameters = unsafe { ffi::sqlite3_bind_parameter_count(pointer.as_ptr()) };
        let parameters = usize::try_from(parameters).unwrap_or(0);
        Ok(Statement { pointer, parameters, database: self, running: Cell::new(false) })
    }

    /// Prepares and executes one statement without values, and forgets it.
    pub(crate) fn execute(&self, sql: &str) -> Result<()> {
        self.prepare(sql)?.execute(&[]).map(|_rows| ())
    }

    /// The row id the last insert made.
    pub(crate) fn last_insert_rowid(&self) -> i64 {
        // SAFETY: the handle is open.
        unsafe { ffi::sqlite3_last_insert_rowid(self.handle.as_ptr()) }
    }

    /// Whether a transaction is open: some errors end it, others do not.
    pub(crate) fn in_transaction(&self) -> bool {
        // SAFETY: the handle is open.
        unsafe { ffi::sqlite3_get_autocommit(self.handle.as_ptr()) == 0 }
    }

    /// How many pages were written since this was last asked.
    pub(crate) fn pages_written(&self) -> u64 {
        let (mut pages, mut highest) = (0, 0);
        // SAFETY: the handle is open, both places are writable. On an error they stay as they are.
        unsafe {
            ffi::sqlite3_db_status(
                self.handle.as_ptr(),
                ffi::SQLITE_DBSTATUS_CACHE_WRITE,
                &raw mut pages,
                &raw mut highest,
                1,
            )
        };
        u64::try_from(pages).unwrap_or(0)
    }

    fn check(&self, code: c_int) -> Result<()> {
        if code == ffi::SQLITE_OK { Ok(()) } else { Err(self.error()) }
    }

    /// The error of the last call.
    fn error(&self) -> Error {
        // SAFETY: the handle is open; SQLite's text is nul-terminated and stays until the next call, which is after the copy.
        let (code, text) = unsafe {
            let text = CStr::from_ptr(ffi::sqlite3_errmsg(self.handle.as_ptr()));
            (ffi::sqlite3_extended_errcode(self.handle.as_ptr()), text.to_string_lossy().into_owned())
        };
        error::from_code(code, text)
    }
}

/// A value to bind.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Value<'v> {
    Null,
    Integer(i64),
    Text(&'v str),
    Blob(&'v [u8]),
}

impl From<i64> for Value<'_> {
    fn from(value: i64) -> Self {
        Self::Integer(value)
    }
}

impl<'v> From<&'v str> for Value<'v> {
    fn from(value: &'v str) -> Self {
        Self::Text(value)
    }
}

impl<'v> From<&'v [u8]> for Value<'v> {
    fn from(value: &'v [u8]) -> Self {
        Self::Blob(value)
    }
}

impl<'v, T: Into<Value<'v>>> From<Option<T>> for Value<'v> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

/// A compiled statement.
pub(crate) struct Statement<'d> {
    pointer: NonNull<ffi::sqlite3_stmt>,
    parameters: usize,
    database: &'d Database<'d>,
    // A row's closure may reach this statement again through the cache it came from.
    running: Cell<bool>,
}

impl Statement<'_> {
    /// Executes it and returns how many rows it changed.
    pub(crate) fn execute(&self, values: &[Value<'_>]) -> Result<usize> {
        self.query(values, |_row| Ok(()))?;
        // SAFETY: the handle is open.
        let changes = unsafe { ffi::sqlite3_changes64(self.database.handle.as_ptr()) };
        Ok(usize::try_from(changes).unwrap_or(0))
    }

    /// Executes it and calls `each` with every row.
    pub(crate) fn query(
        &self,
        values: &[Value<'_>],
        mut each: impl FnMut(&Row<'_>) -> Result<()>,
    ) -> Result<()> {
        self.query_while(values, |row| each(row).map(|()| true))
    }

    /// Executes it and calls `each` with every row, until it returns false.
    pub(crate) fn query_while(
        &self,
        values: &[Value<'_>],
        mut each: impl FnMut(&Row<'_>) -> Result<bool>,
    ) -> Result<()> {
        if values.len() != self.parameters || self.running.replace(true) {
            return Err(Error::new(
                ErrorKind::Engine,
                "a statement was executed with too few values, or twice",
            ));
        }
        // Resets the statement however this function is left, so that no bound borrow is ever read again.
        let running = Running(self);
        for (index, value) in (1..).zip(values) {
            self.bind(index, *value)?;
        }
        loop {
            // SAFETY: the statement is alive and its values are bound, borrowed until `running` resets it.
            match unsafe { ffi::sqlite3_step(self.pointer.as_ptr()) } {
                ffi::SQLITE_ROW if each(&Row { pointer: self.pointer, running: PhantomData })? => {}
                ffi::SQLITE_ROW | ffi::SQLITE_DONE => break,
                _error => return Err(self.database.error()),
            }
        }
        drop(running);
        Ok(())
    }

    /// The first row's first column, when it is a number.
    pub(crate) fn integer(&self, values: &[Value<'_>]) -> Result<Option<i64>> {
        let mut found = None;
        self.query(values, |row| {
            found = row.optional_integer(0);
            Ok(())
        })?;
        Ok(found)
    }

    /// Its text.
    #[cfg(test)]
    pub(crate) fn text(&self) -> String {
        // SAFETY: the statement is alive; its text is nul-terminated and lives as long.
        unsafe { CStr::from_ptr(ffi::sqlite3_sql(self.pointer.as_ptr())) }.to_string_lossy().into_owned()
    }

    /// How many values it takes.
    #[cfg(test)]
    pub(crate) fn parameters(&self) -> usize {
        self.parameters
    }

    fn bind(&self, index: c_int, value: Value<'_>) -> Result<()> {
        let statement = self.pointer.as_ptr();
        // SAFETY: the statement is alive and not running, the index is in range (checked against `parameters`). Text and
        // blobs are bound without a copy (`SQLITE_STATIC`, no destructor): they outlive the execution, see the module.
        let code = unsafe {
            match value {
                Value::Null => ffi::sqlite3_bind_null(statement, index),
                Value::Integer(number) => ffi::sqlite3_bind_int64(statement, index, number),
                Value::Text(text) => {
                    let length = c_int::try_from(text.len()).map_err(|_too_long| ErrorKind::TooLarge)?;
                    ffi::sqlite3_bind_text(statement, index, text.as_ptr().cast(), length, None)
                }
                // A dangling pointer is not null, so that an empty blob stays a blob.
                Value::Blob(bytes) => {
                    let length = c_int::try_from(bytes.len()).map_err(|_too_long| ErrorKind::TooLarge)?;
                    ffi::sqlite3_bind_blob(statement, index, bytes.as_ptr().cast(), length, None)
                }
            }
        };
        self.database.check(code)
    }
}

impl Drop for Statement<'_> {
    fn drop(&mut self) {
        // SAFETY: made by `prepare`, finalised once; the database it borrows is still open.
        unsafe { ffi::sqlite3_finalize(self.pointer.as_ptr()) };
    }
}

/// Resets a statement when the execution ends.
struct Running<'s, 'd>(&'s Statement<'d>);

impl Drop for Running<'_, '_> {
    fn drop(&mut self) {
        // SAFETY: the statement is alive. The code repeats the error `sqlite3_step` already returned.
        unsafe { ffi::sqlite3_reset(self.0.pointer.as_ptr()) };
        self.0.running.set(false);
    }
}

/// The row a running statement stands on.
pub(crate) struct Row<'r> {
    pointer: NonNull<ffi::sqlite3_stmt>,
    running: PhantomData<&'r ()>,
}

impl Row<'_> {
    pub(crate) fn integer(&self, column: c_int) -> i64 {
        // SAFETY: the statement stands on a row; a column out of range reads as null, by SQLite's documentation.
        unsafe { ffi::sqlite3_column_int64(self.pointer.as_ptr(), column) }
    }

    pub(crate) fn optional_integer(&self, column: c_int) -> Option<i64> {
        (!self.is_null(column)).then(|| self.integer(column))
    }

    pub(crate) fn is_null(&self, column: c_int) -> bool {
        // SAFETY: as in `integer`.
        unsafe { ffi::sqlite3_column_type(self.pointer.as_ptr(), column) == ffi::SQLITE_NULL }
    }

    /// The bytes of a text or blob; empty for null.
    pub(crate) fn bytes(&self, column: c_int) -> &[u8] {
        // SAFETY: as in `integer`. The pointer is read before the length, as SQLite's documentation asks, is null or readable
        // for that many bytes, and stays valid until the statement steps on, which needs the row given back.
        unsafe {
            let start = ffi::sqlite3_column_blob(self.pointer.as_ptr(), column).cast::<u8>();
            let length = ffi::sqlite3_column_bytes(self.pointer.as_ptr(), column);
            match usize::try_from(length) {
                Ok(length) if !start.is_null() && length > 0 => slice::from_raw_parts(start, length),
                _ => &[],
            }
        }
    }

    pub(crate) fn text(&self, column: c_int) -> Result<&str> {
        std::str::from_utf8(self.bytes(column)).map_err(|source| Error::new(ErrorKind::Undecodable, source))
    }

    pub(crate) fn optional_text(&self, column: c_int) -> Result<Option<&str>> {
        if self.is_null(column) { Ok(None) } else { self.text(column).map(Some) }
    }
}
