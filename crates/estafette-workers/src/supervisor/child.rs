//! One start of a process: its pipes, its process group, and its end.

use std::{process::ExitStatus, process::Stdio, sync::Arc, time::Duration};

use estafette_core::{Error, ErrorKind, Result};
use rustix::process::{Pid, Signal};
use tokio::{
    process::{Child, Command},
    task::JoinSet,
    time::Instant,
};

use super::{
    Shared,
    output::{LastLines, Stream},
};
use crate::{Address, environment::Assignment, error::system, role::Role};

/// How long the rest of a dead process's output is awaited: others may hold its pipes.
const OUTPUT_WAIT_MAX: Duration = Duration::from_millis(500);

/// A process that runs, the leader of a process group.
pub(super) struct Running {
    child: Child,
    pid: Pid,
    started: Instant,
    outputs: JoinSet<()>,
    lines: Arc<LastLines>,
    shared: Arc<Shared>,
}

impl Running {
    /// Starts the process at `address`.
    ///
    /// # Errors
    ///
    /// When this program cannot be started again.
    pub(super) fn start(shared: &Arc<Shared>, address: &Address) -> Result<Self> {
        let plan = &shared.plan;
        shared.endpoint.directory.remove_sockets(address)?;
        let assignment = Assignment {
            address: address.clone(),
            count: shared.board.count(),
            incarnation: shared.board.next_incarnation(),
            group: plan.name.clone(),
            directory: shared.endpoint.directory.clone(),
            supervisor: std::process::id(),
            limits: plan.limits.clone(),
            // Several signs fit into the limit, so that one late sign is no reason to kill.
            heartbeat: plan.heartbeat.map(|limit| limit / 4),
        };
        let mut command = Command::new(&shared.program);
        command
            .arg0(Role::Worker.name())
            .args(&plan.arguments)
            .envs(assignment.variables())
            // What it would tell the service manager is not about the service.
            .env_remove("NOTIFY_SOCKET")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        let mut child = command.spawn().map_err(|error| system("starting a process", error))?;
        let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        let Some(pid) = pid else {
            return Err(Error::new(ErrorKind::Engine, "a process ended before it was seen"));
        };
        shared.guardian.add(pid);
        shared.board.started(address, assignment.incarnation, pid);
        let lines = Arc::new(LastLines::default());
        let outputs = pass_outputs_on(shared, address, &mut child, &lines);
        Ok(Self { child, pid, started: Instant::now(), outputs, lines, shared: Arc::clone(shared) })
    }

    /// For how long it has been running.
    pub(super) fn age(&self) -> Duration {
        self.started.elapsed()
    }

    /// The last lines it printed.
    pub(super) fn last_lines(&self) -> String {
        self.lines.text()
    }

    /// Waits for its end, then kills what it has started and collects what it printed.
    ///
    /// Can be cancelled and called again.
    ///
    /// # Errors
    ///
    /// When the system does not tell how it ended.
    pub(super) async fn ended(&mut self) -> Result<ExitStatus> {
        let status = self.child.wait().await.map_err(|error| system("waiting for a process", error))?;
        self.kill();
        self.shared.guardian.remove(self.pid);
        let outputs = async { while self.outputs.join_next().await.is_some() {} };
        if tokio::time::timeout(OUTPUT_WAIT_MAX, outputs).await.is_err() {
            self.outputs.abort_all();
        }
        Ok(status)
    }

    /// Asks it to stop, and kills it when it takes longer than the grace period.
    ///
    /// # Errors
    ///
    /// When the system does not tell how it ended.
    pub(super) async fn stop(&mut self) -> Result<ExitStatus> {
        self.signal(Signal::TERM);
        let grace = self.shared.plan.grace;
        if let Ok(ended) = tokio::time::timeout(grace, self.ended()).await {
            return ended;
        }
        tracing::warn!(pid = self.pid.as_raw_nonzero(), ?grace, "a process did not stop in time; killed");
        self.kill();
        self.ended().await
    }

    /// Kills it with everything it has started.
    pub(super) fn kill(&self) {
        self.signal(Signal::KILL);
    }

    fn signal(&self, signal: Signal) {
        // The group may have ended in this moment.
        if let Err(error) = rustix::process::kill_process_group(self.pid, signal) {
            tracing::trace!(%error, "no process group to signal");
        }
    }
}

fn pass_outputs_on(
    shared: &Arc<Shared>,
    address: &Address,
    child: &mut Child,
    lines: &Arc<LastLines>,
) -> JoinSet<()> {
    let mut outputs = JoinSet::new();
    if let Some(source) = child.stdout.take() {
        let (shared, address, lines) = (Arc::clone(shared), address.clone(), Arc::clone(lines));
        outputs.spawn(async move {
            shared.console.pass_on(address, Stream::Standard, source, lines).await;
        });
    }
    if let Some(source) = child.stderr.take() {
        let (shared, address, lines) = (Arc::clone(shared), address.clone(), Arc::clone(lines));
        outputs.spawn(async move {
            shared.console.pass_on(address, Stream::Error, source, lines).await;
        });
    }
    outputs
}
