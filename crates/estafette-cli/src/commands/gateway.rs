//! `estafette gateway`: users' connections, as a configuration file says.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use estafette::gateway::{
    api::{Api, ApiHandle},
    config::Config,
};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::{daemon, output, session::Session};

/// Serves users' WebSocket and TCP connections, which scripts drive and backends answer
///
/// The file has the servers, their scripts, and the management API that backends speak to. Scripts that change are taken anew
/// while it runs. On SIGHUP the file is read again: the users of the management API change, everything else needs a restart.
/// On SIGTERM or SIGINT it accepts nothing more, tells every client to connect again, and ends.
#[derive(clap::Args)]
#[command(after_help = "\
EXAMPLES
  estafette gateway -f conf/estafette.yaml
  estafette gateway -f conf/estafette.yaml --check")]
pub(crate) struct Arguments {
    /// The configuration file
    #[arg(short, long, value_name = "FILE")]
    file: PathBuf,

    /// Only look whether the file can be used
    #[arg(long)]
    check: bool,

    #[command(flatten)]
    service: daemon::Options,
}

impl Arguments {
    pub(crate) async fn run(self, _session: &Session) -> anyhow::Result<()> {
        let config = Config::read(&self.file)?;
        let builder = config.builder()?;
        if self.check {
            return output::print(&format!(
                "{} can be used: {} servers",
                self.file.display(),
                config.servers.len()
            ));
        }
        let daemon = self.service.start()?;
        let gateway = builder.start().await?;
        let api = Api::bind(config.api.clone(), gateway.hub().clone())
            .await
            .context("the management API does not start")?;
        for address in gateway.addresses() {
            output::print(&format!("users connect to {address}"))?;
        }
        if let (Some(management), Some(discovery)) = (api.management_address(), api.discovery_address()) {
            output::print(&format!("backends connect to {management}, and find it at {discovery}"))?;
        }
        let handle = api.handle();
        let hangup = signal(SignalKind::hangup()).context("signals cannot be heard")?;
        let stop = daemon::stopped();
        daemon.ready()();
        tokio::select! {
            () = api.serve(stop) => {}
            () = reload(&self.file, &handle, hangup) => {}
        }
        gateway.stop().await;
        Ok(())
    }
}

/// Reads the file again at every SIGHUP.
async fn reload(file: &Path, handle: &ApiHandle, mut hangup: Signal) {
    while hangup.recv().await.is_some() {
        let users = Config::read(file).map(|config| config.api.users);
        match users.map(|users| handle.set_users(users)) {
            Ok(Ok(())) => tracing::info!("the configuration was read again"),
            Ok(Err(error)) => tracing::error!(%error, "the configuration stays as it was"),
            Err(error) => tracing::error!(%error, "the configuration stays as it was"),
        }
    }
    // Without the signal there is nothing to reload, and the gateway goes on.
    std::future::pending().await
}
