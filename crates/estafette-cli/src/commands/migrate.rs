//! `estafette migrate`: brings the tables of a database up to date, or prints how.

use anyhow::Context as _;
use estafette::{TransportUrl, sql};

use crate::{
    failure::UsageError,
    output,
    session::{Session, without_secrets},
};

/// Brings the tables of a database up to date
///
/// Programs do that themselves when they connect, unless their URL says `migrate=off`: for when the user they connect as may
/// not make tables. With --print nothing is connected to or changed.
#[derive(clap::Args)]
#[command(after_help = "\
EXAMPLES
  estafette migrate --url postgres://owner@db.example/shop
  estafette migrate --url mysql://owner@db.example/shop --print > estafette.sql")]
pub(crate) struct Arguments {
    /// Print the SQL from an empty database on, for another tool to run
    #[arg(long)]
    print: bool,
}

impl Arguments {
    pub(crate) async fn run(self, session: &Session) -> anyhow::Result<()> {
        let text = session.url()?;
        let url: TransportUrl = text.parse().map_err(|error: estafette::Error| UsageError(error.report()))?;
        if !sql::ServerConfig::answers_to(url.scheme()) {
            return Err(UsageError(format!(
                "{} needs no migration; postgres://… and mysql://… do (sqlite: makes its tables when it is opened)",
                without_secrets(&text)
            ))
            .into());
        }
        let config = sql::ServerConfig::from_url(url).map_err(|error| UsageError(error.report()))?;
        if self.print {
            for (version, sql) in sql::migrations(&config) {
                if session.json() {
                    let line = serde_json::json!({ "version": version, "sql": sql });
                    output::print(&line.to_string())?;
                } else {
                    output::print(&format!("-- Estafette's tables, version {version}\n{sql}"))?;
                }
            }
            return Ok(());
        }
        let migrated = sql::migrate(&config).await;
        let (before, after) =
            migrated.with_context(|| format!("cannot migrate {}", without_secrets(&text)))?;
        if session.json() {
            output::print(&serde_json::json!({ "before": before, "after": after }).to_string())?;
        } else if before == after {
            output::print(&format!("the tables have version {after} already"))?;
        } else {
            output::print(&format!("brought the tables from version {before} to {after}"))?;
        }
        Ok(())
    }
}
