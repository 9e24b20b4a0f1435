//! `estafette demo`: see messages move.
//!
//! This process starts a publisher and two workers, which are this program again, and only watches: what they say they
//! did, and what is in the store. One worker is killed half way and started again.
//!
//! Reading order: `messages` (what is sent, and what each queue takes), `publisher` and `worker` (the processes), `crew`
//! (starting and hearing them), `tally` (what was heard), `show` (the run itself), `board` (its display), `summary`.

mod board;
mod crew;
mod messages;
pub(crate) mod publisher;
mod show;
mod summary;
mod tally;
pub(crate) mod worker;

use std::{
    io::IsTerminal as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, ensure};
use console::style;

use self::{board::Board, show::Show};
use crate::{output, session::Session};

/// Shows messages move: a publisher and two worker processes, retries, dead letters, and nothing lost
///
/// The messages are files in a directory of its own, which is kept to look around in. Some fail and are tried again, some
/// are refused, and half way a worker is killed with SIGKILL and started again. Takes about ten seconds. Ends with
/// status 1 if a message is lost.
#[derive(clap::Args)]
#[command(after_help = "\
EXAMPLES
  estafette demo
  estafette demo --messages 10000 --dir ./demo")]
pub(crate) struct Arguments {
    /// How many messages are published
    #[arg(long, value_name = "N", default_value = "2000", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    messages: u32,

    /// The directory, which must be new or empty; one in the system's directory for temporary files by default
    #[arg(long, value_name = "PATH")]
    dir: Option<PathBuf>,
}

impl Arguments {
    pub(crate) async fn run(self, session: &Session) -> anyhow::Result<()> {
        let directory = directory(self.dir)?;
        let quiet = session.json();
        if !quiet {
            output::print(&title(&directory))?;
        }
        let board = match (quiet, std::io::stderr().is_terminal()) {
            (true, _) => Board::silent(),
            (false, true) => Board::terminal(self.messages.into())?,
            (false, false) => Board::plain(),
        };
        let outcome = Show::begin(&directory, self.messages, board).await?.run().await?;
        let text =
            if quiet { summary::json(&outcome).to_string() } else { summary::text(&outcome, &directory) };
        output::print(&text)?;
        ensure!(outcome.missing() == 0, "{} copies of messages are lost", outcome.missing());
        Ok(())
    }
}

/// Makes the directory of the demo, as an absolute path.
fn directory(wanted: Option<PathBuf>) -> anyhow::Result<PathBuf> {
    let Some(path) = wanted else {
        let made = tempfile::Builder::new().prefix("estafette-demo-").tempdir();
        return Ok(made.context("cannot make a directory for temporary files")?.keep());
    };
    let shown = path.display();
    std::fs::create_dir_all(&path).with_context(|| format!("cannot make the directory {shown}"))?;
    let mut entries =
        std::fs::read_dir(&path).with_context(|| format!("cannot read the directory {shown}"))?;
    ensure!(entries.next().is_none(), "the directory {shown} is not empty: the demo needs one of its own");
    path.canonicalize().with_context(|| format!("cannot find the directory {shown}"))
}

fn title(directory: &Path) -> String {
    format!(
        "\n  {}\n\n  One publisher, two workers, no server: the messages are files in\n  {}\n",
        style("Estafette").bold().cyan(),
        style(mail(directory).display()).dim(),
    )
}

/// Where the messages are.
fn mail(directory: &Path) -> PathBuf {
    directory.join("mail")
}
