//! The dozen functions of SQLite's C interface that the floor needs, made safe to call. The only unsafe code of this crate.
#![allow(unsafe_code, reason = "a foreign interface is called; every block says why it may be")]

use std::ffi::{CStr, CString, c_int};
use std::marker::PhantomData;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::ptr;

use anyhow::{Context as _, bail};
use libsqlite3_sys as ffi;

/// An open database.
pub(super) struct Connection {
    handle: *mut ffi::sqlite3,
}

/// A prepared statement; it does not outlive its connection.
pub(super) struct Statement<'connection> {
    handle: *mut ffi::sqlite3_stmt,
    connection: PhantomData<&'connection Connection>,
}

/// What a step of a statement came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// There is a row to read.
    Row,
    /// There is none, or none any more.
    Done,
}

impl Connection {
    /// Opens or creates the database at `path`.
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        let path = CString::new(path.as_os_str().as_bytes())?;
        let mut handle = ptr::null_mut();
        // SAFETY: `path` ends in a zero and `handle` is a place to write to; both outlive the call.
        let code = unsafe { ffi::sqlite3_open(path.as_ptr(), &raw mut handle) };
        // Even a failed open returns a handle that must be closed, which dropping does.
        let connection = Self { handle };
        check(code).context("open")?;
        Ok(connection)
    }

    /// Runs statements that return nothing of interest.
    pub(super) fn execute(&self, sql: &str) -> anyhow::Result<()> {
        let text = CString::new(sql)?;
        // SAFETY: the handle is open, `text` ends in a zero and outlives the call; no callback is given.
        let code =
            unsafe { ffi::sqlite3_exec(self.handle, text.as_ptr(), None, ptr::null_mut(), ptr::null_mut()) };
        check(code).with_context(|| sql.to_owned())
    }

    /// Prepares one statement.
    pub(super) fn prepare(&self, sql: &str) -> anyhow::Result<Statement<'_>> {
        let text = CString::new(sql)?;
        let mut handle = ptr::null_mut();
        // SAFETY: the handle is open, `text` ends in a zero (so -1 may stand for its length), and SQLite copies it.
        let code = unsafe {
            ffi::sqlite3_prepare_v2(self.handle, text.as_ptr(), -1, &raw mut handle, ptr::null_mut())
        };
        check(code).with_context(|| sql.to_owned())?;
        Ok(Statement { handle, connection: PhantomData })
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // SAFETY: the handle came from sqlite3_open (or is null, which is allowed), and statements that borrow the connection
        // are finalized before it is dropped.
        unsafe { ffi::sqlite3_close(self.handle) };
    }
}

impl Statement<'_> {
    /// Runs the statement to its end and makes it ready to run again.
    pub(super) fn run(&mut self) -> anyhow::Result<()> {
        while self.step()? == Step::Row {}
        self.reset()
    }

    /// Goes on to the next row.
    pub(super) fn step(&mut self) -> anyhow::Result<Step> {
        // SAFETY: the handle is a prepared statement of an open connection.
        match unsafe { ffi::sqlite3_step(self.handle) } {
            ffi::SQLITE_ROW => Ok(Step::Row),
            ffi::SQLITE_DONE => Ok(Step::Done),
            code => bail!("step: {}", message(code)),
        }
    }

    /// Makes the statement ready to run again; what is bound stays bound.
    pub(super) fn reset(&mut self) -> anyhow::Result<()> {
        // SAFETY: the handle is a prepared statement of an open connection.
        check(unsafe { ffi::sqlite3_reset(self.handle) }).context("reset")
    }

    /// Binds the parameter at `position`, from 1.
    pub(super) fn bind_integer(&mut self, position: c_int, value: i64) -> anyhow::Result<()> {
        // SAFETY: the handle is a prepared statement; a position that does not exist is refused by SQLite.
        check(unsafe { ffi::sqlite3_bind_int64(self.handle, position, value) }).context("bind")
    }

    /// Binds the parameter at `position`, from 1, to a copy of `value`.
    pub(super) fn bind_bytes(&mut self, position: c_int, value: &[u8]) -> anyhow::Result<()> {
        let length = c_int::try_from(value.len())?;
        // SAFETY: `value` has `length` bytes, and SQLITE_TRANSIENT makes SQLite copy them before it returns.
        let code = unsafe {
            ffi::sqlite3_bind_blob(
                self.handle,
                position,
                value.as_ptr().cast(),
                length,
                ffi::SQLITE_TRANSIENT(),
            )
        };
        check(code).context("bind")
    }

    /// The current row's integer in `column`, from 0.
    pub(super) fn integer(&self, column: c_int) -> i64 {
        // SAFETY: the handle is a prepared statement; SQLite answers 0 when there is no such column or row.
        unsafe { ffi::sqlite3_column_int64(self.handle, column) }
    }

    /// A copy of the current row's bytes in `column`, from 0.
    pub(super) fn bytes(&self, column: c_int) -> Vec<u8> {
        // SAFETY: the handle is a prepared statement; the pointer is asked for before the length, as the manual wants, and
        // stays valid until the next step, which needs `&mut self`. Null stands for an empty value.
        unsafe {
            let start: *const u8 = ffi::sqlite3_column_blob(self.handle, column).cast();
            let length = usize::try_from(ffi::sqlite3_column_bytes(self.handle, column)).unwrap_or(0);
            if start.is_null() { Vec::new() } else { std::slice::from_raw_parts(start, length).to_vec() }
        }
    }
}

impl Drop for Statement<'_> {
    fn drop(&mut self) {
        // SAFETY: the handle is a prepared statement (or null, which is allowed) and is not used again.
        unsafe { ffi::sqlite3_finalize(self.handle) };
    }
}

fn check(code: c_int) -> anyhow::Result<()> {
    if code == ffi::SQLITE_OK { Ok(()) } else { bail!(message(code)) }
}

fn message(code: c_int) -> String {
    // SAFETY: SQLite returns a text that ends in a zero and is never freed, for any code.
    let text = unsafe { CStr::from_ptr(ffi::sqlite3_errstr(code)) };
    text.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_back_as_they_were_bound() {
        let connection = Connection::open(Path::new(":memory:")).unwrap();
        let mut echo = connection.prepare("SELECT ?1, ?2").unwrap();
        for bytes in [&b""[..], b"\0\xff", &[7; 100_000]] {
            echo.bind_integer(1, i64::MIN).unwrap();
            echo.bind_bytes(2, bytes).unwrap();
            assert_eq!(echo.step().unwrap(), Step::Row);
            assert_eq!((echo.integer(0), echo.bytes(1)), (i64::MIN, bytes.to_vec()));
            assert_eq!(echo.step().unwrap(), Step::Done);
            echo.reset().unwrap();
        }
    }

    #[test]
    fn mistakes_are_errors() {
        assert!(Connection::open(Path::new("/nowhere/at/all")).is_err());
        let connection = Connection::open(Path::new(":memory:")).unwrap();
        assert!(connection.execute("NOT SQL").is_err());
        assert!(connection.prepare("SELECT * FROM nothing").is_err());
        assert!(connection.prepare("SELECT 1").unwrap().bind_integer(1, 1).is_err());
    }
}
