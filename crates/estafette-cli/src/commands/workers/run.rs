//! `estafette workers -- COMMAND`: becomes the supervisor of a group.

use std::{ffi::OsString, time::Duration};

use anyhow::Context as _;
use estafette::workers::{Restart, Workers, WorkersBuilder};

use super::told;
use crate::values;

/// How a group is run.
#[derive(clap::Args)]
pub(super) struct Plan {
    /// How many workers; auto is as many as this machine runs threads at once
    #[arg(short = 'n', long = "count", default_value = "auto", value_name = "COUNT|auto", value_parser = count)]
    count: Count,

    /// The group's name, of which one runs per user
    #[arg(long, default_value = "workers")]
    name: String,

    /// Run another program beside the workers, by the shell; may be given several times
    #[arg(long = "process", value_name = "NAME=COMMAND", value_parser = process)]
    processes: Vec<(String, String)>,

    /// How long a worker may take to stop before it is killed
    #[arg(long, default_value = "10s", value_name = "DURATION", value_parser = values::duration)]
    grace: Duration,

    /// Replace workers that give no sign of life for this long
    #[arg(long, value_name = "DURATION", value_parser = values::duration)]
    heartbeat: Option<Duration>,

    /// Stop the group when a worker died more often than this within --window
    #[arg(long, default_value_t = 10, value_name = "COUNT")]
    deaths_max: usize,

    /// In which time deaths are counted
    #[arg(long, default_value = "60s", value_name = "DURATION", value_parser = values::duration)]
    window: Duration,

    /// The program and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// How many workers.
#[derive(Clone, Copy)]
enum Count {
    Auto,
    Exactly(u32),
}

fn count(text: &str) -> Result<Count, String> {
    if text == "auto" {
        return Ok(Count::Auto);
    }
    text.parse().map(Count::Exactly).map_err(|_error| "a number of workers, or auto".into())
}

fn process(text: &str) -> Result<(String, String), String> {
    let (name, command) = text.split_once('=').ok_or("a process looks like NAME=COMMAND")?;
    Ok((name.to_owned(), command.to_owned()))
}

impl Plan {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        // The supervisor has a thread and a runtime of its own: its workers end with the thread that started them.
        let (done, ended) = tokio::sync::oneshot::channel();
        let supervise = move || {
            if done.send(self.supervise()).is_err() {
                tracing::debug!("nobody waits for the group any more");
            }
        };
        std::thread::Builder::new().name("supervisor".into()).spawn(supervise).context("no thread starts")?;
        ended.await.context("the supervisor panicked")?
    }

    fn supervise(self) -> anyhow::Result<()> {
        let mut restart = Restart::default();
        restart.deaths_max = self.deaths_max;
        restart.window = self.window;
        let builder = match self.count {
            Count::Auto => Workers::builder_auto(),
            Count::Exactly(count) => Workers::builder(count),
        };
        let mut builder: WorkersBuilder = builder.name(self.name).grace(self.grace).restart(restart);
        if let Some(limit) = self.heartbeat {
            builder = builder.heartbeat(limit);
        }
        for (name, command) in self.processes {
            // The shell makes way for the program, so that signals reach it first.
            builder = builder.process_command(name, ["sh", "-c", &format!("exec {command}")]);
        }
        builder.run_command(self.command).map_err(told)
    }
}
