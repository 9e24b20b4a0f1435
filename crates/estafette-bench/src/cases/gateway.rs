//! The gateway: what a delivery costs the server, in processor time.

use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;

use super::Size;
use crate::case::{Case, Loop, Rate};
use crate::floor;
use crate::gateway::{Job, Server, Spec, load};
use crate::peer::gateway::{PEERS, Peer};

/// Messages under way at once when the window is full.
const WINDOW: u32 = 64;

/// The jobs of the gateway: deliveries per second of the server's processor time.
#[must_use]
pub fn cases(size: Size) -> Vec<Case> {
    let mut cases = Vec::new();
    for (subscribers, messages) in [(1000, 2000), (5000, 400)] {
        let one = Job { subscribers, messages: size.of(messages) / 4, window: 1 };
        let full = Job { subscribers, messages: size.of(messages) * 2, window: WINDOW };
        for (job, mode, how) in [(one, "each", "one at a time"), (full, "coalesced", "full window")] {
            let name = format!("gateway: {subscribers} subscribers, {how}, deliveries per CPU second");
            cases.push(Case::new(&*name, Loop::blocking(move |_| measure(&floor(mode)?, &Spec::PLAIN, job))));
            for peer in PEERS.into_iter().filter(Peer::is_installed) {
                let name = format!("{name} ({})", peer.name);
                let theirs =
                    Loop::blocking(move |directory| measure(&peer.start(directory)?, &peer.spec, job));
                cases.push(Case::new(name, theirs));
            }
        }
    }
    cases
}

/// Starts this program as a floor.
fn floor(mode: &str) -> anyhow::Result<Server> {
    let program = std::env::current_exe().context("this program's path")?;
    Server::start(|port| {
        let mut command = Command::new(program);
        command.arg(floor::gateway::AGENT).arg(port.to_string()).arg(mode);
        Ok(command)
    })
}

#[allow(clippy::print_stderr, reason = "latencies have no column of their own")]
fn measure(server: &Server, spec: &Spec, job: Job) -> anyhow::Result<Rate> {
    let sample = load::run(server, spec, job)?;
    let (median, slow) = sample.latency;
    eprintln!("  publish to receive: {median:.1?} at the median, {slow:.1?} at the 99th percentile");
    Ok(Rate::of(sample.deliveries, sample.cpu.max(Duration::from_millis(10))))
}
