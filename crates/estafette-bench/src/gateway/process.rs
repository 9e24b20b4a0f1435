//! A server as a process of its own, and the processor time it spends.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

/// How long a server may take until it answers.
const START_MAX: Duration = Duration::from_secs(20);

/// The unit of processor time in `/proc`, on every Linux this runs on.
const TICKS_PER_SECOND: f64 = 100.0;

/// How a server is started and spoken to.
#[derive(Debug, Clone)]
pub struct Spec {
    /// The path subscribers connect to.
    pub subscribe_path: &'static str,
    /// What each sends first, when the server wants to be told.
    pub subscribe: Option<&'static str>,
    /// The path the publisher connects to.
    pub publish_path: &'static str,
    /// What stands before and after a message that is published.
    pub around: (&'static str, &'static str),
}

impl Spec {
    /// What the floors, and the other servers written for this, want.
    pub const PLAIN: Self =
        Self { subscribe_path: "/subscribe", subscribe: None, publish_path: "/publish", around: ("", "") };
}

/// A server that runs. It ends when this is dropped.
pub struct Server {
    child: Child,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Server {
    /// Starts the program that `command` makes for a port, and waits until it answers.
    ///
    /// # Errors
    ///
    /// When it cannot be started, or ends, or does not answer in time.
    pub fn start(command: impl FnOnce(u16) -> anyhow::Result<Command>) -> anyhow::Result<Self> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut command = command(port)?;
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let child = command.spawn().with_context(|| format!("{command:?} cannot be started"))?;
        let mut server = Self { child, address: SocketAddr::from(([127, 0, 0, 1], port)) };
        let deadline = Instant::now() + START_MAX;
        while TcpStream::connect(server.address).is_err() {
            let ended = server.child.try_wait()?;
            ensure!(ended.is_none(), "{command:?} ended before it answered: {ended:?}");
            ensure!(Instant::now() < deadline, "{command:?} does not answer");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(server)
    }

    /// The processor time it has spent, its children's included.
    ///
    /// # Errors
    ///
    /// When `/proc` cannot be read.
    pub fn cpu(&self) -> anyhow::Result<Duration> {
        let mut ticks = 0.0;
        for entry in fs::read_dir("/proc")? {
            let path = entry?.path();
            let is_process =
                path.file_name().is_some_and(|name| name.as_encoded_bytes().iter().all(u8::is_ascii_digit));
            // A process may end while it is looked at.
            if is_process && let Ok(stat) = fs::read_to_string(path.join("stat")) {
                ticks += ticks_of(&stat, self.child.id()).unwrap_or(0.0);
            }
        }
        Ok(Duration::try_from_secs_f64(ticks / TICKS_PER_SECOND)?)
    }

    /// Its resident memory in bytes, without its children's.
    ///
    /// # Errors
    ///
    /// When `/proc` cannot be read.
    pub fn memory(&self) -> anyhow::Result<u64> {
        let status = fs::read_to_string(Path::new("/proc").join(self.child.id().to_string()).join("status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        let kilobytes: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
        Ok(kilobytes * 1024)
    }
}

/// The ticks of a process in `/proc/PID/stat`, when it is `root` or a child of it. Fields: proc_pid_stat(5).
fn ticks_of(stat: &str, root: u32) -> Option<f64> {
    let (id, rest) = stat.split_once(' ')?;
    // The name is in parentheses and may hold anything.
    let fields: Vec<&str> = rest.rsplit_once(')')?.1.split_whitespace().collect();
    let parent: u32 = fields.get(1)?.parse().ok()?;
    if id.parse::<u32>().ok()? != root && parent != root {
        return None;
    }
    Some(fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?)
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
