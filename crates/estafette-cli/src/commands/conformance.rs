//! `estafette conformance`: which behaviours the user's own engine shows.

use std::{ffi::OsString, sync::Arc, time::Duration};

use anyhow::{Context as _, bail};
use estafette::{Transport, TransportUrl};
use estafette_conformance::{AgentProgram, Options, Subject};
use indicatif::ProgressBar;

use crate::{output, session, session::Session, values};

/// Runs the conformance suite against your own engine
///
/// Prints which behaviours hold, as a table or as JSON. The suite uses names that nothing else has and deletes the queues
/// it made, but it does publish, consume and delete: a store of its own is the better place. Ends with status 1 when a
/// behaviour is violated or could not be found out.
#[derive(clap::Args)]
#[command(after_help = "\
EXAMPLES
  estafette conformance --url file:/tmp/conformance
  estafette conformance --url sqlite:./scratch.db --only order
  estafette conformance --url file:/tmp/conformance --json | jq '.behaviours[] | select(.verdict != \"holds\")'")]
pub(crate) struct Arguments {
    /// Only behaviours whose group::name contains this text. May be repeated
    #[arg(long, value_name = "TEXT")]
    only: Vec<String>,

    /// The longest time for one behaviour
    #[arg(long, value_name = "TIME", value_parser = values::duration, default_value = "90s")]
    time_limit: Duration,

    /// How many behaviours run at the same time
    #[arg(long, value_name = "N", default_value = "4")]
    concurrency: std::num::NonZeroUsize,
}

impl Arguments {
    pub(crate) async fn run(self, session: &Session) -> anyhow::Result<()> {
        let Self { only, time_limit, concurrency } = self;
        // A connection that works first, so that a wrong URL is one clear line instead of a table of failures.
        session.connect().await?.close().await?;
        let url = session.url()?.into_owned();
        let subject = Subject::new(connector(&url), url.as_str()).with_agent(agent_program(&url)?);
        let options =
            Options { only, time_max: time_limit, concurrency: concurrency.get(), ..Options::default() };
        // Seen on a terminal only.
        let spinner = ProgressBar::new_spinner().with_message("trying out one behaviour after the other");
        spinner.enable_steady_tick(Duration::from_millis(100));
        let report = estafette_conformance::run(subject, options).await?;
        spinner.finish_and_clear();
        if session.json() {
            output::print(&report.to_json().to_string())?;
        } else {
            output::print(report.to_table().trim_end())?;
        }
        if !report.passed() {
            bail!("{} does not conform: {}", session::without_secrets(&url), report.summary());
        }
        Ok(())
    }
}

/// Connects to `url`, whatever the suite asks for: that is the same one, but a parsed URL does not say its settings again.
fn connector(
    url: &str,
) -> impl Fn(TransportUrl) -> BoxFuture<estafette::Result<Arc<dyn Transport>>> + Clone + use<> {
    let url: Arc<str> = url.into();
    move |_parsed| {
        let url = Arc::clone(&url);
        Box::pin(async move { estafette::connect(&url).await })
    }
}

type BoxFuture<T> = std::pin::Pin<Box<dyn Future<Output = T> + Send>>;

/// This program again, as another process that uses the same URL.
fn agent_program(url: &str) -> anyhow::Result<AgentProgram> {
    let program = std::env::current_exe().context("cannot find this program to start it again")?;
    let mut arguments: Vec<OsString> = vec!["conformance-agent".into()];
    // A URL in the environment may hold a password, which does not belong into the list of processes.
    if std::env::var_os("ESTAFETTE_URL").is_none_or(|set| set != url) {
        arguments.extend(["--url".into(), url.into()]);
    }
    Ok(AgentProgram { program, arguments })
}

/// The other processes of the suite.
pub(crate) mod agent {
    use crate::session::Session;

    /// Does what the suite asks for on standard input. Started by `conformance`
    #[derive(clap::Args)]
    pub(crate) struct Arguments {}

    impl Arguments {
        pub(crate) async fn run(self, session: &Session) -> anyhow::Result<()> {
            let Self {} = self;
            Ok(estafette_conformance::serve_agent(super::connector(&session.url()?)).await?)
        }
    }
}
