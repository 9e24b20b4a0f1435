//! The processes of the demo: started, heard, and never left behind.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, ChildStdin, ChildStdout, Command},
    sync::mpsc,
    task::JoinHandle,
};

use super::tally::Heard;

/// How long a worker may take to end when it is asked to.
const END_MAX: Duration = Duration::from_secs(10);

/// Starts processes.
pub(super) struct Crew {
    program: PathBuf,
    directory: PathBuf,
    url: String,
    sender: mpsc::Sender<Heard>,
}

/// A process that was started. Killed when dropped.
pub(super) struct Member {
    child: Child,
    // Its end tells the process to stop, even when this one is killed.
    input: Option<ChildStdin>,
    listening: JoinHandle<()>,
    log: PathBuf,
}

impl Crew {
    /// Whoever is started says what it does to `sender`, and logs into `directory`.
    pub(super) fn new(directory: &Path, url: &str, sender: mpsc::Sender<Heard>) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("cannot find this program to start it again")?;
        Ok(Self { program, directory: directory.to_owned(), url: url.to_owned(), sender })
    }

    /// Starts this program again, as `name`.
    pub(super) fn start(&self, name: &str, arguments: &[&str]) -> anyhow::Result<Member> {
        let log = self.directory.join(format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&log);
        let file = file.with_context(|| format!("cannot write {}", log.display()))?;
        let mut child = Command::new(&self.program)
            .args(arguments)
            .args(["--url", &self.url])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(file)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        let output = child.stdout.take().context("the process has no output")?;
        let listening = tokio::spawn(listen(output, self.sender.clone()));
        let input = child.stdin.take();
        Ok(Member { child, input, listening, log })
    }
}

async fn listen(output: ChildStdout, sender: mpsc::Sender<Heard>) {
    let mut lines = BufReader::new(output).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let Some(heard) = Heard::parse(&line) else {
            tracing::warn!(line, "not understood");
            continue;
        };
        if sender.send(heard).await.is_err() {
            return;
        }
    }
}

impl Member {
    /// The id of the process, while it runs.
    pub(super) fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Kills it with SIGKILL, and waits until it is gone and everything it had said is heard.
    pub(super) async fn kill(mut self) -> anyhow::Result<()> {
        self.child.kill().await.context("cannot kill the process")?;
        Ok(self.listening.await?)
    }

    /// Waits until it ends by itself.
    pub(super) async fn ended(&mut self) -> anyhow::Result<()> {
        let status = self.child.wait().await.context("cannot wait for the process")?;
        let log = self.log.display();
        ensure!(status.success(), "a process of the demo ended with {status}; its log is {log}");
        Ok((&mut self.listening).await?)
    }

    /// Asks it to stop and waits until it has.
    pub(super) async fn stop(mut self) -> anyhow::Result<()> {
        self.input = None;
        tokio::time::timeout(END_MAX, self.ended()).await.context("a worker does not stop")?
    }
}
