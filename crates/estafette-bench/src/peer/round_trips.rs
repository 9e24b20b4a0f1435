//! Request and reply between two processes of one host.

use std::{fs, path::Path, process::Command, time::Duration};

use anyhow::Context as _;

use super::runs;
use crate::case::Rate;

/// A program that measures round trips.
#[derive(Debug, Clone, Copy)]
pub struct Peer {
    /// What it is called in the table.
    pub name: &'static str,
    interpreter: &'static str,
    /// What must run for the peer to be installed.
    needs: &'static [(&'static str, &'static [&'static str])],
    script: &'static str,
    file: &'static str,
}

const PEERS: [Peer; 4] = [
    Peer {
        name: "Node's process.send",
        interpreter: "node",
        needs: &[("node", &["--version"])],
        script: include_str!("../../peers/process_send.js"),
        file: "process_send.js",
    },
    Peer {
        name: "Python's multiprocessing",
        interpreter: "python3",
        needs: &[("python3", &["--version"])],
        script: include_str!("../../peers/pipe.py"),
        file: "pipe.py",
    },
    Peer {
        name: "ZeroMQ ipc (pyzmq)",
        interpreter: "python3",
        needs: &[("python3", &["-c", "import zmq"])],
        script: include_str!("../../peers/zeromq.py"),
        file: "zeromq.py",
    },
    Peer {
        name: "NATS (bare sockets in Python)",
        interpreter: "python3",
        needs: &[("python3", &["--version"]), ("nats-server", &["--version"])],
        script: include_str!("../../peers/nats.py"),
        file: "nats.py",
    },
];

/// Those that are installed here.
pub fn installed() -> impl Iterator<Item = Peer> {
    PEERS.into_iter().filter(|peer| peer.needs.iter().all(|(program, arguments)| runs(program, arguments)))
}

impl Peer {
    /// One over the median time of a round trip, of `trips`.
    ///
    /// # Errors
    ///
    /// When the program fails.
    pub fn p50(self, directory: &Path, trips: u32) -> anyhow::Result<Rate> {
        let path = directory.join(self.file);
        fs::write(&path, self.script)?;
        let output = Command::new(self.interpreter).arg(path).arg(trips.to_string()).output()?;
        let text = String::from_utf8(output.stdout)?;
        let p50 = text.split(' ').next().context("it printed nothing")?;
        let p50 = p50.parse().with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
        Ok(Rate::of(1, Duration::from_nanos(p50)))
    }
}
