//! Sending to workers, and asking them, from outside.

use std::time::Duration;

use anyhow::bail;
use estafette::workers::{Group, To};
use serde_json::{Value, json};

use super::told;
use crate::{output, session::Session, values};

/// What is sent, and to whom.
#[derive(clap::Args)]
struct Message {
    /// The group's name
    group: String,

    /// What the message is about; workers listen by it
    action: String,

    /// The data, as JSON
    #[arg(default_value = "null", value_parser = data)]
    data: Value,

    /// Whom it is for: all, any, worker ids such as 0,2, the name of a process, or supervisor
    #[arg(long, default_value = "all", value_name = "TO")]
    to: String,
}

fn data(text: &str) -> Result<Value, String> {
    serde_json::from_str(text).map_err(|error| format!("{error}; a text needs its quotes: '\"text\"'"))
}

impl Message {
    /// The ids in `--to`, when it is a list of them.
    fn ids(&self) -> anyhow::Result<Vec<u32>> {
        if !self.to.starts_with(|first: char| first.is_ascii_digit()) {
            return Ok(Vec::new());
        }
        let ids: Result<_, _> = self.to.split(',').map(|id| id.trim().parse()).collect();
        ids.map_err(|_error| anyhow::anyhow!("--to {} is no list of worker ids such as 0,2", self.to))
    }

    fn to<'a>(&'a self, ids: &'a [u32]) -> To<'a> {
        match (self.to.as_str(), ids) {
            (_, [id]) => To::One(*id),
            (_, [_, ..]) => To::Many(ids),
            ("all", _) => To::All,
            ("any", _) => To::Any,
            ("supervisor", _) => To::Supervisor,
            (name, _) => To::Process(name),
        }
    }
}

/// Sends a message to workers; prints how many it was handed to
#[derive(clap::Args)]
#[command(after_help = "\
EXAMPLES
  estafette workers send shop cache.clear
  estafette workers send shop log.level '\"debug\"' --to 0,2")]
pub(super) struct Send {
    #[command(flatten)]
    message: Message,
}

impl Send {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let Message { group, action, data, .. } = &self.message;
        let ids = self.message.ids()?;
        let group = Group::connect(group).await.map_err(told)?;
        let count = group.send(action, data, self.message.to(&ids)).await.map_err(told)?;
        group.close().await;
        output::print(&count.to_string())
    }
}

/// Asks workers and prints their replies
///
/// One that is asked alone prints its reply; several print a line each, with who answered.
#[derive(clap::Args)]
#[command(after_help = "\
EXAMPLES
  estafette workers request shop price '{\"id\":7}' --to any
  estafette workers request shop load --to all --timeout 500ms")]
pub(super) struct Request {
    #[command(flatten)]
    message: Message,

    /// How long to wait for replies
    #[arg(long, default_value = "5s", value_name = "DURATION", value_parser = values::duration)]
    timeout: Duration,
}

impl Request {
    pub(super) async fn run(self, session: &Session) -> anyhow::Result<()> {
        let Message { group, action, data, .. } = &self.message;
        let ids = self.message.ids()?;
        let to = self.message.to(&ids);
        let group = Group::connect(group).await.map_err(told)?;
        if !matches!(to, To::All | To::Many(_)) {
            let reply: Value = group.request(action, data, to, self.timeout).await.map_err(told)?;
            return output::print(&reply.to_string());
        }
        let replies = group.request_all::<_, Value>(action, data, to, self.timeout).await.map_err(told)?;
        let mut failed = 0;
        for (address, reply) in &replies {
            let line = match reply {
                Ok(reply) if session.json() => {
                    json!({ "worker": address.to_string(), "reply": reply }).to_string()
                }
                Ok(reply) => format!("{address}: {reply}"),
                Err(error) => {
                    failed += 1;
                    output::warn(&format!("{address}: {}", error.report()));
                    continue;
                }
            };
            output::print(&line)?;
        }
        if failed > 0 {
            bail!("{failed} of {} did not reply", replies.len());
        }
        Ok(())
    }
}
