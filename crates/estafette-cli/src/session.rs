//! What all commands share: where the messages are, and how to talk about it.

use anyhow::Context as _;
use estafette::Bus;

use crate::failure::UsageError;

/// The options of every command.
#[derive(clap::Args)]
#[command(next_help_heading = "Options of every command")]
pub(crate) struct Session {
    /// Where the messages are, such as file:./mail or sqlite:./mail.db; or set ESTAFETTE_URL
    #[arg(long, global = true, env = "ESTAFETTE_URL", hide_env = true, value_name = "URL")]
    url: Option<String>,

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

    /// The URL given.
    ///
    /// # Errors
    ///
    /// A sentence that says how to give one.
    pub(crate) fn url(&self) -> anyhow::Result<&str> {
        self.url.as_deref().filter(|url| !url.is_empty()).ok_or_else(|| {
            let sentence = "where are the messages? say --url file:./mail, or set ESTAFETTE_URL \
                            (also: sqlite:./mail.db)";
            UsageError(sentence.into()).into()
        })
    }

    /// A bus on the URL given.
    ///
    /// # Errors
    ///
    /// A missing URL, and those of connecting.
    pub(crate) async fn connect(&self) -> anyhow::Result<Bus> {
        connect(self.url()?).await
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
