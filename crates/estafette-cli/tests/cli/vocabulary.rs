//! What the tests are written with: places where messages are, and runs of the program there.

use std::{
    io::Write as _,
    process::{Child, Command, Output, Stdio},
    sync::mpsc,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

/// No run takes longer.
const RUN_MAX: Duration = Duration::from_secs(60);

/// A new directory with messages, and its URL.
pub struct Place {
    pub directory: TempDir,
    pub url: String,
}

/// Runs a test on a new place of each transport.
pub fn on_each(test: impl Fn(&Place)) {
    test(&Place::file());
    test(&Place::sqlite());
}

impl Place {
    pub fn file() -> Self {
        let directory = TempDir::new().unwrap();
        let url = format!("file:{}/mail?durability=os", directory.path().display());
        Self { directory, url }
    }

    pub fn sqlite() -> Self {
        let directory = TempDir::new().unwrap();
        let url = format!("sqlite:{}/mail.db", directory.path().display());
        Self { directory, url }
    }

    /// The program, to be run here.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = program(arguments);
        command.env("ESTAFETTE_URL", &self.url).current_dir(self.directory.path());
        command
    }

    /// Runs the program here.
    pub fn run(&self, arguments: &[&str]) -> Run {
        self.run_with(arguments, b"")
    }

    /// Runs the program here with this on its standard input.
    pub fn run_with(&self, arguments: &[&str], input: &[u8]) -> Run {
        run(self.command(arguments), input)
    }

    /// Runs the program here; it must succeed. Returns what it printed.
    pub fn ok(&self, arguments: &[&str]) -> String {
        self.run(arguments).ok()
    }

    /// The objects a command prints with `--json`.
    pub fn json(&self, arguments: &[&str]) -> Vec<Value> {
        let printed = self.ok(&[arguments, &["--json"]].concat());
        printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The status of a queue.
    pub fn queue(&self, name: &str) -> Value {
        let queues = self.json(&["queues"]);
        queues.into_iter().find(|queue| queue["name"] == name).unwrap_or_else(|| panic!("no queue {name}"))
    }
}

/// The program with nothing from the environment that would change what it does.
pub fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_estafette"));
    command.args(arguments).env_remove("ESTAFETTE_URL").env_remove("RUST_LOG").env("NO_COLOR", "1");
    command
}

/// What a run of the program came to.
#[derive(Debug)]
pub struct Run {
    pub status: i32,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl Run {
    /// What it printed. It must have succeeded.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.status, 0, "{}", self.stderr);
        String::from_utf8(self.stdout).unwrap()
    }

    /// What it complained about. It must have failed with this status, and printed nothing.
    #[track_caller]
    pub fn fails(self, status: i32) -> String {
        assert_eq!(self.status, status, "{}", self.stderr);
        assert_eq!(String::from_utf8_lossy(&self.stdout), "");
        self.stderr
    }
}

/// Runs a command to its end.
pub fn run(mut command: Command, input: &[u8]) -> Run {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let writer = std::thread::spawn(move || {
        // A program that does not read its input is within its rights.
        drop(stdin.write_all(&input));
    });
    let run = end(child);
    writer.join().unwrap();
    run
}

/// Waits for the end of a process, at most so long.
pub fn end(child: Child) -> Run {
    let id = child.id();
    let (sender, receiver) = mpsc::channel();
    let waiter = std::thread::spawn(move || sender.send(child.wait_with_output()));
    let Ok(output) = receiver.recv_timeout(RUN_MAX) else {
        signal(id, Signal::KILL);
        panic!("a run took longer than {RUN_MAX:?}");
    };
    waiter.join().unwrap().unwrap();
    let Output { status, stdout, stderr } = output.unwrap();
    let status = status.code().unwrap_or_else(|| panic!("ended by {status}"));
    Run { status, stdout, stderr: String::from_utf8_lossy(&stderr).into_owned() }
}

/// Sends a signal to a process this test started.
pub fn signal(id: u32, signal: Signal) {
    let id = Pid::from_raw(i32::try_from(id).unwrap()).unwrap();
    kill_process(id, signal).unwrap();
}
