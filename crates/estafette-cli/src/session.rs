//! What all commands share: where the messages are, and how to talk about it.

use std::{
    borrow::Cow,
    io,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use estafette::{Bus, Config};

use crate::failure::UsageError;

/// The configuration file that is read without being asked for.
const CONFIG: &str = "estafette.toml";

/// The options of every command.
#[derive(clap::Args)]
#[command(next_help_heading = "Options of every command")]
pub(crate) struct Session {
    /// Where the messages are, such as file:./mail or sqlite:./mail.db; or set ESTAFETTE_URL
    #[arg(long, global = true, value_name = "URL")]
    url: Option<String>,

    /// A connection of the configuration file, instead of a URL
    #[arg(long, global = true, value_name = "NAME", conflicts_with = "url")]
    bus: Option<String>,

    /// The configuration file [default: estafette.toml, if there is one]; or set ESTAFETTE_CONFIG
    #[arg(long, global = true, env = "ESTAFETTE_CONFIG", hide_env = true, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Print JSON, one object a line
    #[arg(long, global = true)]
    json: bool,

    /// Log more to standard error; twice for even more
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
}

impl Session {
    /// Whether machines read the output.
    pub(crate) fn json(&self) -> bool {
        self.json
    }

    /// How many levels more than warnings are logged.
    pub(crate) fn verbose(&self) -> u8 {
        self.verbose
    }

    /// The URL given, or that of the connection named, or of the configuration's default.
    ///
    /// # Errors
    ///
    /// A sentence that says how to give one; a mistake in the configuration.
    pub(crate) fn url(&self) -> anyhow::Result<Cow<'_, str>> {
        if let Some(name) = &self.bus {
            return self.named(Some(name)).map(Cow::Owned);
        }
        if let Some(url) = &self.url {
            return Ok(url.into());
        }
        // Not an option's environment variable to clap: --bus would seem to contradict it.
        if let Some(url) = std::env::var("ESTAFETTE_URL").ok().filter(|url| !url.is_empty()) {
            return Ok(url.into());
        }
        self.named(None).map(Cow::Owned)
    }

    /// The URL that `place` is, or that of the connection it names.
    ///
    /// # Errors
    ///
    /// As [`url`](Self::url).
    pub(crate) fn place<'a>(&self, place: &'a str) -> anyhow::Result<Cow<'a, str>> {
        if place.contains(':') { Ok(place.into()) } else { self.named(Some(place)).map(Cow::Owned) }
    }

    fn named(&self, name: Option<&str>) -> anyhow::Result<String> {
        let path = self.config.as_deref().unwrap_or(Path::new(CONFIG));
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.config.is_none() => {
                let sentence = match name {
                    None => "where are the messages? say --url file:./mail, or set ESTAFETTE_URL (also: \
                             sqlite:./mail.db, amqp://localhost), or name a default bus in estafette.toml"
                        .to_owned(),
                    Some(name) => {
                        format!("which bus is {name:?}? there is no {CONFIG} here; say --config FILE")
                    }
                };
                return Err(UsageError(sentence).into());
            }
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        let config = Config::parse(&text, |variable| std::env::var(variable).ok());
        let url = config.and_then(|config| config.url(name).map(str::to_owned));
        url.map_err(|error| UsageError(format!("{}: {}", path.display(), error.report())).into())
    }

    /// A bus on the URL given.
    ///
    /// # Errors
    ///
    /// A missing URL, and those of connecting.
    pub(crate) async fn connect(&self) -> anyhow::Result<Bus> {
        connect(&self.url()?).await
    }
}

/// A bus on `url`.
///
/// # Errors
///
/// Those of connecting.
pub(crate) async fn connect(url: &str) -> anyhow::Result<Bus> {
    Bus::connect(url).await.with_context(|| format!("cannot connect to {}", without_secrets(url)))
}

/// The URL without its settings and its password, to be shown.
pub(crate) fn without_secrets(url: &str) -> String {
    let address = url.split_once('?').map_or(url, |(address, _)| address);
    match (address.split_once("//"), address.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}//…@{host}"),
        _ => address.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_and_settings_are_not_shown() {
        assert_eq!(without_secrets("amqp://user:se@cret@host/v?key=1"), "amqp://…@host/v");
        assert_eq!(without_secrets("file:./mail?durability=os"), "file:./mail");
        assert_eq!(without_secrets("file:./at@home"), "file:./at@home");
    }
}
