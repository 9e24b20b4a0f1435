//! RabbitMQ through the usual clients of Node and PHP.

use std::{fs, path::Path, process::Command, time::Duration};

use anyhow::{Context as _, ensure};

use super::runs;
use crate::case::Rate;

/// A client that does the same jobs.
#[derive(Debug, Clone, Copy)]
pub struct Peer {
    /// What it is called in the table.
    pub name: &'static str,
    interpreter: &'static str,
    /// What shows that it is installed.
    check: [&'static str; 2],
    /// How it is installed.
    pub installation: &'static str,
    script: &'static str,
    file: &'static str,
}

/// The clients compared with.
pub const PEERS: [Peer; 2] = [
    Peer {
        name: "Node's amqplib",
        interpreter: "node",
        check: ["-e", "require('amqplib')"],
        installation: "npm install amqplib, and NODE_PATH set to its node_modules",
        script: include_str!("../../peers/amqp.js"),
        file: "amqp.js",
    },
    Peer {
        name: "PHP's extension",
        interpreter: "php",
        check: ["-r", "exit(extension_loaded('amqp') ? 0 : 1);"],
        installation: "apt-get install php-amqp",
        script: include_str!("../../peers/amqp.php"),
        file: "amqp.php",
    },
];

impl Peer {
    /// Whether it can be run here.
    #[must_use]
    pub fn is_installed(&self) -> bool {
        runs(self.interpreter, &self.check)
    }

    /// Runs a job with its numbers, as the scripts describe them: the first is how many messages.
    ///
    /// # Errors
    ///
    /// When the program fails.
    pub fn run(&self, directory: &Path, job: &str, url: &str, numbers: &[u32]) -> anyhow::Result<Rate> {
        let path = directory.join(self.file);
        fs::write(&path, self.script)?;
        let mut command = Command::new(self.interpreter);
        command.arg(path).arg(job).arg(url).args(numbers.iter().map(u32::to_string));
        let output = command.output()?;
        ensure!(output.status.success(), "{}: {}", self.name, String::from_utf8_lossy(&output.stderr));
        let seconds: f64 = str::from_utf8(&output.stdout)?.trim().parse().context("it printed no seconds")?;
        let messages = numbers.first().context("a job has a number of messages")?;
        Ok(Rate::of(*messages, Duration::try_from_secs_f64(seconds)?))
    }
}
