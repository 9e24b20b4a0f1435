//! `estafette lua`: scripts of the gateway, looked at before they are used.

use std::path::PathBuf;

use anyhow::bail;
use clap::Subcommand;
use estafette::gateway::lua::{Abi, check};

use crate::{output, session::Session};

/// Looks after scripts of the gateway
#[derive(clap::Args)]
#[command(after_help = "\
EXAMPLES
  estafette lua check lua/entry.lua")]
pub(crate) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Loads a script as the gateway would: its syntax, its callbacks, and the names of `mix` it uses
    #[command(after_help = "\
EXAMPLES
  estafette lua check lua/entry.lua
  estafette lua check lua/chat.lua --abi 1")]
    Check {
        /// The script
        file: PathBuf,

        /// The shape of its callbacks: 1 gives them the connection, 2 its number
        #[arg(long, default_value = "2", value_parser = clap::value_parser!(u8).range(1..=2))]
        abi: u8,
    },
}

impl Arguments {
    #[allow(clippy::unused_async, reason = "every command is run in the same way")]
    pub(crate) async fn run(self, _session: &Session) -> anyhow::Result<()> {
        let Verb::Check { file, abi } = self.verb;
        let report = check::check(&file, if abi == 1 { Abi::V1 } else { Abi::V2 })?;
        output::print(&format!("{}: {}", file.display(), report.callbacks.join(", ")))?;
        for unknown in &report.unknown {
            output::print(&format!("{}:{}: there is no {}", file.display(), unknown.line, unknown.name))?;
        }
        if report.unknown.is_empty() {
            return Ok(());
        }
        bail!("the script uses names that are not there")
    }
}
