//! `estafette workers`: processes of one program, supervised, and talking to each other.

mod control;
mod messages;
mod run;

use clap::Subcommand;

use crate::session::Session;

/// Runs a program as several worker processes, and talks to them
///
/// Each worker learns its number from ESTAFETTE_WORKER_ID and the socket to listen on from ESTAFETTE_WORKER_SOCKET. One that
/// dies is started again; SIGHUP replaces all of them one by one, SIGTERM stops them.
#[derive(clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "\
EXAMPLES
  estafette workers -n 4 -- python3 worker.py
  estafette workers -n auto --name shop --process scheduler='./scheduler' -- ./my-app
  estafette workers status --name shop
  estafette workers scale 8 --name shop
  estafette workers send shop cache.clear --to all
  estafette workers request shop price '{\"id\":7}' --to 0,2"
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    run: run::Plan,

    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Subcommand)]
enum Verb {
    Status(control::Status),
    Reload(control::Reload),
    Stop(control::Stop),
    Scale(control::Scale),
    Send(messages::Send),
    Request(messages::Request),
}

impl Arguments {
    pub(crate) async fn run(self, session: &Session) -> anyhow::Result<()> {
        match self.verb {
            None => self.run.run().await,
            Some(Verb::Status(verb)) => verb.run(session).await,
            Some(Verb::Reload(verb)) => verb.run().await,
            Some(Verb::Stop(verb)) => verb.run().await,
            Some(Verb::Scale(verb)) => verb.run().await,
            Some(Verb::Send(verb)) => verb.run().await,
            Some(Verb::Request(verb)) => verb.run(session).await,
        }
    }
}

/// The name of a group, as an option.
#[derive(clap::Args)]
struct Name {
    /// The group's name
    #[arg(long, default_value = "workers", value_name = "NAME")]
    name: String,
}

/// An error of the library with its whole story: the advice the other commands give is about queues.
#[allow(clippy::needless_pass_by_value, reason = "it is given to map_err")]
fn told(error: estafette::Error) -> anyhow::Error {
    anyhow::anyhow!(std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string))
}
