//! `estafette.toml`: named connections, one of them the default.
//!
//! ```
//! use estafette::Config;
//!
//! let text = r#"
//! [bus]
//! default = "${MESSAGE_BROKER:-rabbitmq}"
//!
//! [bus.drivers.rabbitmq]
//! driver = "amqp"
//! host = "${EVENTSOURCE_HOST:-localhost}"
//! password = "${EVENTSOURCE_PASSWORD:-guest}"
//! user = "guest"
//!
//! [bus.drivers.local]
//! url = "file:./mail"
//! "#;
//! let config = Config::parse(text, |_variable| None)?;
//! assert_eq!(config.url(None)?, "amqp://guest:guest@localhost");
//! assert_eq!(config.url(Some("local"))?, "file:./mail");
//! # Ok::<(), estafette::Error>(())
//! ```
//!
//! Any value may hold `${NAME}` or `${NAME:-default}`; `$$` is a dollar sign. Who reads the environment is the application:
//! [`Config::parse`] is told what a variable holds. `docs/configuration.md` has every key.

use std::{collections::BTreeMap, fmt::Write as _};

use estafette_core::{Error, ErrorKind, Result};
use serde::Deserialize;

use crate::{Bus, DRIVERS};

/// The named connections of a configuration file.
#[derive(Clone)]
pub struct Config {
    default: Option<Result<String>>,
    /// A connection with a mistake is one only when it is used: another may need variables that are not set here.
    urls: BTreeMap<String, Result<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    bus: Section,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Section {
    default: Option<String>,
    #[serde(default)]
    drivers: BTreeMap<String, Connection>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Connection {
    url: Option<String>,
    driver: Option<String>,
    host: Option<String>,
    port: Option<Scalar>,
    user: Option<String>,
    password: Option<String>,
    vhost: Option<String>,
    #[serde(default)]
    settings: BTreeMap<String, Scalar>,
}

/// A value of which only the text matters.
#[derive(Deserialize)]
#[serde(untagged)]
enum Scalar {
    Text(String),
    Number(i64),
    Truth(bool),
}

impl Config {
    /// Reads a configuration; `variable` says what an environment variable holds, such as `|name| std::env::var(name).ok()`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`] with the line, when the text is no such file. A mistake in one connection is reported when
    /// that is asked for.
    pub fn parse(text: &str, variable: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let File { bus } = toml::from_str(text).map_err(|error| invalid(error.to_string().trim_end()))?;
        let expand = |text: &str| expand(text, &variable);
        let url = |(name, connection): (String, Connection)| {
            let url = connection.url(&name, &expand);
            let context = |error: Error| invalid(format!("[bus.drivers.{name}]: {}", error.report()));
            (name.clone(), url.map_err(context))
        };
        Ok(Self {
            default: bus.default.as_deref().map(expand),
            urls: bus.drivers.into_iter().map(url).collect(),
        })
    }

    /// The URL of the connection with this name, or of the default one.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`] that names the connections there are, or what is wrong with this one.
    pub fn url(&self, name: Option<&str>) -> Result<&str> {
        let name = match (name, &self.default) {
            (Some(name), _) => name,
            (None, Some(default)) => default.as_ref().map_err(Clone::clone)?,
            (None, None) => return Err(invalid(format!("no bus is the default; {}", self.known()))),
        };
        match self.urls.get(name) {
            Some(url) => url.as_deref().map_err(Clone::clone),
            None => Err(invalid(format!("there is no bus {name:?}; {}", self.known()))),
        }
    }

    /// The names of the connections, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.urls.keys().map(String::as_str)
    }

    fn known(&self) -> String {
        let names: Vec<&str> = self.names().collect();
        if names.is_empty() {
            "[bus.drivers] is empty".into()
        } else {
            format!("there is {}", names.join(", "))
        }
    }
}

impl std::fmt::Debug for Config {
    /// Without the URLs, which may hold passwords.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Config").field("names", &self.urls.keys()).finish_non_exhaustive()
    }
}

impl Bus {
    /// Connects to a named connection of `config`, or to its default.
    ///
    /// # Errors
    ///
    /// Those of [`Config::url`] and of [`Bus::connect`].
    pub async fn from_config(config: &Config, name: Option<&str>) -> Result<Self> {
        Self::connect(config.url(name)?).await
    }
}

impl Connection {
    fn url(&self, name: &str, expand: &impl Fn(&str) -> Result<String>) -> Result<String> {
        let mut url = match &self.url {
            Some(_) if self.has_parts() => return Err(invalid("give either a url or its parts, not both")),
            Some(url) => expand(url)?,
            None => self.assembled(name, expand)?,
        };
        for (number, (key, value)) in self.settings.iter().enumerate() {
            let separator = if number > 0 || url.contains('?') { '&' } else { '?' };
            write!(url, "{separator}{key}={}", encoded(&expand(&value.text())?))
                .map_err(|error| Error::new(ErrorKind::InvalidInput, error))?;
        }
        Ok(url)
    }

    fn has_parts(&self) -> bool {
        let Self { driver, host, port, user, password, vhost, .. } = self;
        [driver, host, user, password, vhost].into_iter().any(Option::is_some) || port.is_some()
    }

    fn assembled(&self, name: &str, expand: &impl Fn(&str) -> Result<String>) -> Result<String> {
        let scheme = match &self.driver {
            Some(driver) => expand(driver)?,
            None => name.to_owned(),
        };
        let mut schemes = DRIVERS.iter().flat_map(|driver| driver.schemes);
        if !schemes.any(|known| *known == scheme) {
            let known = DRIVERS.iter().map(|driver| driver.name).collect::<Vec<_>>().join(", ");
            return Err(invalid(format!("no driver {scheme:?}; say driver = one of {known}, or give a url")));
        }
        let part = |part: &Option<String>| part.as_deref().map(expand).transpose();
        let Some(host) = part(&self.host)? else { return Err(invalid("it has neither a url nor a host")) };
        let mut url = format!("{scheme}://");
        if let Some(user) = part(&self.user)? {
            url += &encoded(&user);
            if let Some(password) = part(&self.password)? {
                url += ":";
                url += &encoded(&password);
            }
            url += "@";
        } else if self.password.is_some() {
            return Err(invalid("it has a password but no user"));
        }
        url += &host;
        if let Some(port) = &self.port {
            url += ":";
            url += &expand(&port.text())?;
        }
        if let Some(vhost) = part(&self.vhost)? {
            url += "/";
            url += &encoded(&vhost);
        }
        Ok(url)
    }
}

impl Scalar {
    fn text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Number(number) => number.to_string(),
            Self::Truth(truth) => truth.to_string(),
        }
    }
}

/// `text` with its variables replaced.
fn expand(text: &str, variable: &impl Fn(&str) -> Option<String>) -> Result<String> {
    let mut expanded = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        expanded += before;
        if let Some(after) = after.strip_prefix('$') {
            expanded.push('$');
            rest = after;
            continue;
        }
        let braced = after.strip_prefix('{').and_then(|after| after.split_once('}'));
        let Some((inside, after)) = braced else {
            return Err(invalid(format!(
                "{text:?}: a $ begins ${{NAME}} or ${{NAME:-default}}; $$ is a dollar"
            )));
        };
        let (name, default) = match inside.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (inside, None),
        };
        // As in a shell: a variable that is empty counts as not set where there is a default.
        let value = variable(name).filter(|value| default.is_none() || !value.is_empty());
        match value.as_deref().or(default) {
            Some(value) => expanded += value,
            None => return Err(invalid(format!("the variable {name} is not set, and has no default"))),
        }
        rest = after;
    }
    expanded += rest;
    Ok(expanded)
}

/// `text` as part of a URL (RFC 3986, section 2).
fn encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
            let digit = |value: u8| DIGITS.get(usize::from(value)).copied().map_or('0', char::from);
            encoded.extend(['%', digit(byte >> 4), digit(byte & 15)]);
        }
    }
    encoded
}

fn invalid(sentence: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidInput, sentence.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        let variables = [("HOST", "mq.example"), ("SECRET", "p@ss/word"), ("EMPTY", "")];
        let variable = |name: &str| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        };
        Config::parse(text, variable).unwrap()
    }

    fn mistake(text: &str) -> String {
        config(text).url(Some("x")).unwrap_err().report().to_string()
    }

    #[test]
    fn a_connection_is_a_url_or_its_parts() {
        let config = config(
            r#"
            [bus]
            default = "${BROKER:-parts}"
            [bus.drivers.parts]
            driver = "amqps"
            host = "${HOST}"
            port = 5671
            user = "a b"
            password = "${SECRET}"
            vhost = "/"
            settings = { prefetch = 100, queue_type = "quorum" }
            [bus.drivers.whole]
            url = "file:./${EMPTY:-mail}"
            settings = { durability = "os" }
            [bus.drivers.amqp]
            host = "localhost"
            "#,
        );
        let parts = "amqps://a%20b:p%40ss%2Fword@mq.example:5671/%2F?prefetch=100&queue_type=quorum";
        assert_eq!(config.url(None).unwrap(), parts);
        assert_eq!(config.url(Some("whole")).unwrap(), "file:./mail?durability=os");
        assert_eq!(config.url(Some("amqp")).unwrap(), "amqp://localhost");
        assert_eq!(config.names().collect::<Vec<_>>(), ["amqp", "parts", "whole"]);
    }

    #[test]
    fn mistakes_say_what_to_do() {
        let in_x = |line: &str| mistake(&format!("[bus.drivers.x]\n{line}"));
        assert!(in_x("url = '${NOPE}'").contains("the variable NOPE is not set"));
        assert!(in_x("url = 'file:$x'").contains("$$ is a dollar"));
        assert!(in_x("host = 'h'").contains("no driver \"x\"; say driver = one of memory, file"));
        assert!(in_x("driver = 'amqp'").contains("neither a url nor a host"));
        assert!(in_x("url = 'file:a'\nhost = 'h'").contains("not both"));
        assert!(in_x("driver = 'amqp'\nhost = 'h'\npassword = 'p'").contains("no user"));
        assert!(mistake("[bus.drivers.y]\nurl = 'file:a'").contains("no bus \"x\"; there is y"));
        assert!(mistake("[bus]").contains("[bus.drivers] is empty"));
        assert!(
            config("[bus]").url(None).unwrap_err().report().to_string().contains("no bus is the default")
        );
    }

    #[test]
    fn a_mistake_in_another_connection_does_not_matter() {
        let config = config("[bus]\ndefault = 'a'\n[bus.drivers]\na.url = 'memory:'\nb.url = '${NOPE}'");
        assert_eq!(config.url(None).unwrap(), "memory:");
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line() {
        let error = Config::parse("[bus]\ndefautl = 'a'", |_| None).unwrap_err();
        let report = error.report().to_string();
        assert!(report.contains("line 2") && report.contains("defautl"), "{report}");
    }

    #[test]
    fn dollars_can_be_written() {
        assert_eq!(expand("a$$b", &|_: &str| None).unwrap(), "a$b");
    }
}
