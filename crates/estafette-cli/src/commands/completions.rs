//! `estafette completions`: completions for shells.

use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::{output, session::Session};

/// Prints completions for a shell
#[derive(clap::Args)]
#[command(after_help = "\
EXAMPLES
  estafette completions bash > ~/.local/share/bash-completion/completions/estafette
  estafette completions zsh > ~/.zfunc/_estafette
  estafette completions fish > ~/.config/fish/completions/estafette.fish")]
pub(crate) struct Arguments {
    /// The shell
    shell: Shell,
}

impl Arguments {
    #[allow(clippy::unused_async, reason = "every command runs alike")]
    pub(crate) async fn run(self, _session: &Session) -> anyhow::Result<()> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut crate::Arguments::command(), "estafette", &mut script);
        output::print(String::from_utf8_lossy(&script).trim_end())
    }
}
