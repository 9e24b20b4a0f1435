//! What happens within the processes that a supervisor starts: workers, and the guardian.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    io::{self, BufRead as _, Write as _},
    os::unix::process::CommandExt as _,
    process::Command,
    task::Poll,
};

use estafette_core::{Error, ErrorKind, Result};
use rustix::process::{Pid, Signal};

use crate::{
    builder::Work,
    environment::Assignment,
    error::{invalid, system},
    member::Membership,
};

/// Has this process killed when the thread that started it ends, however that comes about.
///
/// # Errors
///
/// [`ErrorKind::Closed`] when it has ended already.
pub(crate) fn die_with(supervisor: u32) -> Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|error| system("asking to die with the supervisor", error))?;
    // Whoever died before the line above sends no signal any more.
    let parent = rustix::process::getppid().map_or(0, Pid::as_raw_pid);
    if u32::try_from(parent) == Ok(supervisor) {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Closed, "the supervisor ended before this process began"))
}

/// Becomes another program, which keeps the environment and the death signal.
///
/// # Errors
///
/// When the program cannot be started.
pub(crate) fn replace_with(command: &[OsString]) -> Result<()> {
    let Some((program, arguments)) = command.split_first() else {
        return Err(invalid("a command needs the name of a program"));
    };
    let error = Command::new(program).args(arguments).exec();
    Err(system(&format!("starting {}", program.display()), error))
}

/// Runs the application's function as a member of the group.
///
/// # Errors
///
/// The function's own, and those of joining.
pub(crate) async fn work(assignment: Assignment, function: Work, is_told: bool) -> Result<()> {
    let membership = Membership::start(assignment)?;
    let worker = membership.worker.clone();
    // A task: tokio looks for events before it returns to a future it blocks on, one system call more for each reply.
    let working = tokio::spawn(async move {
        let mut running = function(worker.clone());
        // Up to where it first waits, nothing else runs: the listeners it adds until then hear the first message.
        let first = std::future::poll_fn(|context| Poll::Ready(running.as_mut().poll(context))).await;
        if !is_told {
            worker.ready();
        }
        match first {
            Poll::Ready(outcome) => outcome,
            Poll::Pending => running.await,
        }
    });
    let outcome = working.await;
    membership.end().await;
    match outcome {
        Ok(outcome) => outcome,
        Err(panicked) => Err(Error::new(ErrorKind::Engine, panicked)),
    }
}

/// Ends this process with `outcome`; what its `main` would do afterwards is the supervisor's to do.
#[allow(
    clippy::print_stderr,
    reason = "the last words of a process whose standard error is the supervisor's to read"
)]
pub(crate) fn end_with(outcome: Result<()>) -> ! {
    let code = match outcome {
        Ok(()) => 0,
        Err(error) => {
            // Nobody is left to tell when standard error is closed too.
            drop(writeln!(io::stderr(), "{}", error.report()));
            1
        }
    };
    std::process::exit(code)
}

/// The guardian: waits for the supervisor's end and then kills the process groups it was told and that were not taken back.
///
/// The death signal reaches the workers only; this reaches what they have started.
///
/// # Errors
///
/// None: it never returns.
pub(crate) fn guard() -> Result<()> {
    let mut groups = BTreeSet::new();
    for line in io::stdin().lock().lines() {
        // Unreadable input ends like the end of input: the supervisor is gone.
        let Ok(line) = line else { break };
        let group = line.get(1..).and_then(|number| number.parse::<i32>().ok());
        match (line.get(..1), group) {
            (Some("+"), Some(group)) => groups.insert(group),
            (Some("-"), Some(group)) => groups.remove(&group),
            _ => continue,
        };
    }
    for group in groups.into_iter().filter_map(Pid::from_raw) {
        if let Err(error) = rustix::process::kill_process_group(group, Signal::KILL) {
            tracing::trace!(%error, "a process group had ended by itself");
        }
    }
    end_with(Ok(()))
}
