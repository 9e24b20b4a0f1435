//! Starting a group for a test, and looking at it from outside.

use std::{
    fs,
    io::Read as _,
    os::unix::process::CommandExt as _,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use estafette_workers::{Group, GroupStatus, Presence};
use rustix::process::{Pid, Signal};

/// How long anything may take here; far more than it does.
pub(crate) const WAIT_MAX: Duration = Duration::from_secs(20);

/// A supervisor that runs one of the programs, killed at the end.
pub(crate) struct Stage {
    directory: tempfile::TempDir,
    pub(crate) supervisor: Child,
}

impl Stage {
    /// Starts a program of [`programs`](crate::programs).
    pub(crate) fn start(program: &str) -> Self {
        let this = std::env::current_exe().unwrap();
        let mut command = Command::new(this);
        command.args(["--ignored", "--exact", &format!("programs::{program}"), "--nocapture"]);
        Self::start_command(command)
    }

    pub(crate) fn start_command(mut command: Command) -> Self {
        let directory = tempfile::Builder::new().prefix("est").tempdir_in("/tmp").unwrap();
        let output = fs::File::create(directory.path().join("output")).unwrap();
        let supervisor = command
            .env("TEST_ROOT", directory.path())
            .env("XDG_RUNTIME_DIR", directory.path())
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .process_group(0)
            .spawn()
            .unwrap();
        Self { directory, supervisor }
    }

    /// Starts a program and waits until all its processes are up.
    pub(crate) async fn up(program: &str) -> (Self, Group) {
        let stage = Self::start(program);
        let group = stage.group().await;
        stage.all_up(&group).await;
        (stage, group)
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.directory.path().join("run")
    }

    pub(crate) fn socket(&self, address: &str) -> PathBuf {
        self.root().join("app").join(format!("{address}.sock"))
    }

    /// The text of a file the programs wrote.
    pub(crate) fn text(&self, file: &str) -> String {
        fs::read_to_string(self.directory.path().join(file)).unwrap_or_default()
    }

    /// Connects from outside, as soon as the group runs.
    pub(crate) async fn group(&self) -> Group {
        eventually("the group runs", async || there(Group::connect_below(&self.root(), "app").await)).await
    }

    /// Waits until every process is up; their state.
    pub(crate) async fn all_up(&self, group: &Group) -> GroupStatus {
        eventually("all processes are up", async || {
            let status = there(group.status().await)?;
            status.members.iter().all(|member| member.presence == Presence::Up).then_some(status)
        })
        .await
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.supervisor.id()).unwrap();
        rustix::process::kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
    }

    /// Waits for the supervisor's end; whether it succeeded.
    pub(crate) async fn ended(&mut self) -> bool {
        let status = eventually("the supervisor ends", async || self.supervisor.try_wait().unwrap()).await;
        status.success()
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if self.supervisor.try_wait().unwrap().is_none() {
            self.supervisor.kill().unwrap();
            self.supervisor.wait().unwrap();
        }
        if std::thread::panicking() {
            eprintln!("--- the group printed\n{}", self.text("output"));
        }
    }
}

/// What came, for [`eventually`]: why it did not come yet is nothing to worry about.
pub(crate) fn there<T, E>(outcome: Result<T, E>) -> Option<T> {
    outcome.ok()
}

/// Tries until it is there.
pub(crate) async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(start.elapsed() < WAIT_MAX, "not within {WAIT_MAX:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Whether a process runs: exists, and is no corpse.
pub(crate) fn runs(pid: u32) -> bool {
    let mut text = String::new();
    let Ok(mut file) = fs::File::open(format!("/proc/{pid}/stat")) else { return false };
    file.read_to_string(&mut text).is_ok() && !text.contains(") Z ")
}

/// The process ids of a group's processes.
pub(crate) fn pids(status: &GroupStatus) -> Vec<u32> {
    status.members.iter().filter_map(|member| member.pid).collect()
}

/// The process id of one process.
pub(crate) async fn pid_of(group: &Group, address: &str) -> Option<u32> {
    let status = there(group.status().await)?;
    status.members.iter().find(|member| member.address == address)?.pid
}

pub(crate) fn kill(pid: u32) -> Result<(), rustix::io::Errno> {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, Signal::KILL)
}
