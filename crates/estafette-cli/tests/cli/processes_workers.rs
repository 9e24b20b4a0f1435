//! Worker processes, from start to stop, as a user sees them.

use std::{
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;

use crate::vocabulary::{Run, program, run};

/// A group that runs.
struct Group {
    directory: TempDir,
    supervisor: Child,
}

impl Group {
    fn command(directory: &TempDir, arguments: &[&str]) -> Command {
        let mut command = program(arguments);
        command.env("XDG_RUNTIME_DIR", directory.path()).stdin(Stdio::null());
        command
    }

    /// Starts workers that run a line of shell.
    fn start(script: &str) -> Self {
        let directory = tempfile::Builder::new().prefix("est").tempdir_in("/tmp").unwrap();
        let mut command = Self::command(
            &directory,
            &["workers", "-n", "2", "--name", "shop", "--deaths-max", "3", "--", "sh", "-c", script],
        );
        let output = std::fs::File::create(directory.path().join("output")).unwrap();
        let supervisor = command.stdout(output.try_clone().unwrap()).stderr(output).spawn().unwrap();
        Self { directory, supervisor }
    }

    fn run(&self, arguments: &[&str]) -> Run {
        run(Self::command(&self.directory, &[&["workers"], arguments].concat()), b"")
    }

    /// The state of the group once `is_true`.
    fn status(&self, is_true: impl Fn(&Value) -> bool) -> Value {
        let start = Instant::now();
        loop {
            let status = self.run(&["status", "--name", "shop", "--json"]);
            if let Ok(status) = serde_json::from_slice(&status.stdout)
                && is_true(&status)
            {
                return status;
            }
            assert!(start.elapsed() < Duration::from_secs(20), "{}", status.stderr);
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn output(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("output")).unwrap()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.supervisor.kill().unwrap();
        self.supervisor.wait().unwrap();
    }
}

fn all_up(status: &Value, count: usize) -> bool {
    let members = status["members"].as_array().unwrap();
    members.len() == count && members.iter().all(|member| member["presence"] == "up")
}

#[test]
fn a_group_is_looked_at_scaled_reloaded_and_stopped() {
    let mut group = Group::start("echo I am $ESTAFETTE_WORKER_ID of $ESTAFETTE_WORKER_COUNT; exec sleep 600");
    let before = group.status(|status| all_up(status, 2));
    let table = group.run(&["status", "--name", "shop"]).ok();
    assert!(table.starts_with("shop: supervisor "), "{table}");
    assert_eq!(table.lines().count(), 4, "{table}");

    group.run(&["scale", "3", "--name", "shop"]).ok();
    group.status(|status| all_up(status, 3));
    group.run(&["reload", "--name", "shop"]).ok();
    let after = group.status(|status| all_up(status, 3));
    assert_ne!(before["members"][0]["pid"], after["members"][0]["pid"]);
    assert_eq!(after["members"][0]["restarts"], 1);

    let complaint = group.run(&["request", "shop", "price", "--to", "7"]).fails(1);
    assert!(complaint.contains("no such worker: 7"), "{complaint}");
    group.run(&["stop", "--name", "shop"]).ok();
    assert!(group.supervisor.wait().unwrap().success());
    let output = group.output();
    for line in ["[0] I am 0 of 2", "[1] I am 1 of 2", "[2] I am 2 of 3"] {
        assert!(output.lines().any(|found| found == line), "{line} is not in {output}");
    }
    let complaint = group.run(&["status", "--name", "shop"]).fails(1);
    assert!(complaint.contains("no group named shop runs"), "{complaint}");
}

#[test]
fn workers_that_die_at_once_stop_the_group_with_their_last_words() {
    let mut group = Group::start("echo no such database >&2; exit 3");
    assert!(!group.supervisor.wait().unwrap().success());
    let output = group.output();
    let last = output.lines().last().unwrap();
    assert!(last.contains("died 4 times within 60s"), "{output}");
    assert!(last.contains("exit status: 3") && last.contains("no such database"), "{output}");
}
