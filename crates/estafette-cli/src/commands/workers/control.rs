//! Looking at a running group, and steering it.

use std::time::Duration;

use anyhow::Context as _;
use estafette::workers::{Group, GroupStatus, MemberStatus, Presence};

use super::{Name, told};
use crate::{output, session::Session, table::table, values};

async fn connect(name: &str) -> anyhow::Result<Group> {
    Group::connect(name).await.map_err(told)
}

/// Shows the processes of a group: since when they run, their memory, their messages
#[derive(clap::Args)]
#[command(after_help = "\
EXAMPLES
  estafette workers status --name shop
  estafette workers status --name shop --json | jq '.members[] | select(.presence != \"up\")'")]
pub(super) struct Status {
    #[command(flatten)]
    group: Name,
}

impl Status {
    pub(super) async fn run(self, session: &Session) -> anyhow::Result<()> {
        let status = connect(&self.group.name).await?.status().await.map_err(told)?;
        if session.json() {
            return output::print(&serde_json::to_string(&status).context("no JSON")?);
        }
        output::print(&summary(&status))?;
        let rows: Vec<_> = status.members.iter().map(row).collect();
        output::print(&table(["worker", "state", "pid", "uptime", "restarts", "memory", "in", "out"], &rows))
    }
}

fn summary(status: &GroupStatus) -> String {
    let GroupStatus { group, pid, uptime_seconds, memory_bytes, .. } = status;
    format!("{group}: supervisor {pid}, up {}, {}", duration(*uptime_seconds), memory(*memory_bytes))
}

fn row(member: &MemberStatus) -> [String; 8] {
    let dash = || "-".to_owned();
    let state = match member.presence {
        Presence::Up => "up",
        Presence::Starting => "starting",
        _ => "down",
    };
    let counts = member.counts;
    [
        member.address.clone(),
        state.into(),
        member.pid.map_or_else(dash, |pid| pid.to_string()),
        member.pid.map_or_else(dash, |_pid| duration(member.uptime_seconds)),
        member.restarts.to_string(),
        memory(member.memory_bytes),
        counts.map_or_else(dash, |counts| counts.messages_in.to_string()),
        counts.map_or_else(dash, |counts| counts.messages_out.to_string()),
    ]
}

fn duration(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h{}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d{}h", seconds / 86_400, seconds / 3600 % 24),
    }
}

fn memory(bytes: Option<u64>) -> String {
    bytes.map_or_else(|| "-".to_owned(), |bytes| format!("{} MiB", bytes >> 20))
}

/// Replaces the processes of a group one by one, without losing messages
#[derive(clap::Args)]
#[command(after_help = "\
EXAMPLES
  estafette workers reload --name shop")]
pub(super) struct Reload {
    #[command(flatten)]
    group: Name,

    /// How long to wait for the end of it
    #[arg(long, default_value = "10m", value_name = "DURATION", value_parser = values::duration)]
    timeout: Duration,
}

impl Reload {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        connect(&self.group.name).await?.reload(self.timeout).await.map_err(told)
    }
}

/// Stops a group gracefully and waits until it has ended
#[derive(clap::Args)]
#[command(after_help = "\
EXAMPLES
  estafette workers stop --name shop")]
pub(super) struct Stop {
    #[command(flatten)]
    group: Name,

    /// How long to wait for the end of it
    #[arg(long, default_value = "1m", value_name = "DURATION", value_parser = values::duration)]
    timeout: Duration,
}

impl Stop {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        connect(&self.group.name).await?.stop(self.timeout).await.map_err(told)
    }
}

/// Changes how many workers a group has
#[derive(clap::Args)]
#[command(after_help = "\
EXAMPLES
  estafette workers scale 8 --name shop")]
pub(super) struct Scale {
    /// How many workers there are to be
    count: u32,

    #[command(flatten)]
    group: Name,
}

impl Scale {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        connect(&self.group.name).await?.scale(self.count).await.map_err(told)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_shown_with_their_two_largest_units() {
        let shown = [5, 65, 3660, 90_000].map(duration);
        assert_eq!(shown, ["5s", "1m5s", "1h1m", "1d1h"]);
    }
}
