//! The supervisor's side of the guardian: a process that outlives it and kills what it leaves behind.

use std::{
    ffi::OsString,
    io::Write as _,
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    sync::{Mutex, PoisonError},
};

use estafette_core::Result;
use rustix::process::Pid;

use crate::{error::system, role::Role};

/// The guardian of a group. It ends when this is dropped, or with the supervisor, however that ends.
pub(crate) struct Guardian {
    process: Mutex<Process>,
}

struct Process {
    child: Child,
    input: Option<ChildStdin>,
}

impl Guardian {
    /// Starts this program again as the guardian.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub(super) fn start(program: &Path, arguments: &[OsString]) -> Result<Self> {
        let mut command = Command::new(program);
        command
            .arg0(Role::Guardian.name())
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            // A group of its own: Ctrl-C is for the supervisor, which still needs it then.
            .process_group(0);
        let mut child = command.spawn().map_err(|error| system("starting the guardian", error))?;
        let input = child.stdin.take();
        Ok(Self { process: Mutex::new(Process { child, input }) })
    }

    /// From now on the process group of `leader` is killed when the supervisor ends.
    pub(super) fn add(&self, leader: Pid) {
        self.tell('+', leader);
    }

    /// The process group of `leader` has ended.
    pub(super) fn remove(&self, leader: Pid) {
        self.tell('-', leader);
    }

    fn tell(&self, sign: char, leader: Pid) {
        let mut process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        let line = format!("{sign}{}\n", leader.as_raw_nonzero());
        // A few bytes for a process that only reads: this does not block.
        if let Some(input) = &mut process.input
            && let Err(error) = input.write_all(line.as_bytes())
        {
            tracing::warn!(%error, "the guardian is gone; processes that workers start may outlive a killed supervisor");
            process.input = None;
        }
    }
}

impl Drop for Guardian {
    fn drop(&mut self) {
        let process = self.process.get_mut().unwrap_or_else(PoisonError::into_inner);
        drop(process.input.take());
        if let Err(error) = process.child.wait() {
            tracing::debug!(%error, "the guardian was not waited for");
        }
    }
}
