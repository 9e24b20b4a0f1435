//! Settings of the transport, and how a URL spells them.

use std::{fmt, path::PathBuf, time::Duration};

use estafette_core::{Error, ErrorKind, Pattern, QueueName, Result, TransportUrl};

/// The port of a server that does not say otherwise, as registered for Gearman.
const PORT: u16 = 4730;

/// Settings of a [`GearmanTransport`](crate::GearmanTransport). Names in brackets are those in a URL.
#[derive(Clone, Debug)]
pub struct GearmanConfig {
    /// The servers. Publishing goes to the first that answers; receiving takes from all.
    pub endpoints: Vec<Endpoint>,
    /// Which queue takes which topics: all publishers and consumers must say the same. None by default. (`subscribe`)
    pub subscriptions: Vec<(QueueName, Pattern)>,
    /// What a message looks like to other programs; an envelope by default. (`body`)
    pub body: Body,
    /// Where attempts that ended with their process are noted, shared by the consumers of one host; a directory of this user
    /// under the system's temporary directory by default, none to count no such attempts. (`state`, `state=none`)
    pub state: Option<PathBuf>,
    /// How long connecting to one server may take; 5 seconds by default. (`connect_timeout`)
    pub connect_timeout: Duration,
    /// How long a call waits for servers that are away or silent before it fails; 30 seconds by default. (`patience`)
    pub patience: Duration,
    /// The largest body, in bytes; 16 MiB by default. (`body_max`)
    pub body_bytes_max: usize,
}

/// A server's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// A name or an IP address.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.host, self.port)
    }
}

/// What a published message looks like to other programs. Both are read, whatever this says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Body {
    /// The whole envelope, as CloudEvents structured JSON.
    #[default]
    Envelope,
    /// The body alone: any Gearman worker reads it. Topic, headers and the other attributes are not kept; the id is the job's
    /// unique id. A message that is retried or dies becomes an envelope then.
    Plain,
}

impl GearmanConfig {
    /// The default settings for these servers.
    #[must_use]
    pub fn new(endpoints: Vec<Endpoint>) -> Self {
        Self {
            endpoints,
            subscriptions: Vec::new(),
            body: Body::Envelope,
            state: Some(std::env::temp_dir().join("estafette-gearman")),
            connect_timeout: Duration::from_secs(5),
            patience: Duration::from_secs(30),
            body_bytes_max: 16 << 20,
        }
    }

    /// The settings in a URL such as `gearman://one,two:4731?subscribe=billing:order.*`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`] for an address that cannot be read, an unknown setting or a value that does not fit.
    pub fn from_url(mut url: TransportUrl) -> Result<Self> {
        let mut config = Self::new(read_endpoints(url.address())?);
        if let Some(text) = url.take("subscribe") {
            config.subscriptions = text.split(',').map(read_subscription).collect::<Result<_>>()?;
        }
        match url.take("body").as_deref() {
            None | Some("envelope") => {}
            Some("plain") => config.body = Body::Plain,
            Some(other) => return Err(invalid(format!("body={other}: it is envelope or plain"))),
        }
        match url.take("state").as_deref() {
            None => {}
            Some("") => {
                return Err(invalid(
                    "state= names no directory; to count no such attempts: state=none".into(),
                ));
            }
            Some("none") => config.state = None,
            Some(path) => config.state = Some(path.into()),
        }
        config.connect_timeout = url.take_duration("connect_timeout")?.unwrap_or(config.connect_timeout);
        config.patience = url.take_duration("patience")?.unwrap_or(config.patience);
        config.body_bytes_max = url.take_parsed("body_max")?.unwrap_or(config.body_bytes_max);
        url.finish()?;
        if config.body_bytes_max > 1 << 30 {
            return Err(invalid(format!("body_max={}: it is 1 GiB at most", config.body_bytes_max)));
        }
        Ok(config)
    }
}

fn invalid(sentence: String) -> Error {
    Error::new(ErrorKind::InvalidInput, sentence)
}

fn read_endpoints(address: &str) -> Result<Vec<Endpoint>> {
    let hosts = address.strip_prefix("//").unwrap_or(address).trim_end_matches('/');
    if hosts.is_empty() {
        return Err(invalid("a Gearman URL names a server: gearman://localhost:4730".into()));
    }
    hosts.split(',').map(read_endpoint).collect()
}

fn read_endpoint(text: &str) -> Result<Endpoint> {
    let wrong = || invalid(format!("{text:?} is no server's address; one looks like localhost:4730"));
    let (host, port) = match text.rsplit_once(':') {
        // An IPv6 address without a port.
        Some(_) if text.ends_with(']') => (text, PORT),
        Some((host, port)) => (host, port.parse().ok().ok_or_else(wrong)?),
        None => (text, PORT),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if host.is_empty() || host.contains(['/', '@', ' ']) {
        return Err(wrong());
    }
    Ok(Endpoint { host: host.to_owned(), port })
}

fn read_subscription(text: &str) -> Result<(QueueName, Pattern)> {
    let Some((queue, pattern)) = text.rsplit_once(':') else {
        return Err(invalid(format!("subscribe={text}: it is QUEUE:PATTERN, as in billing:order.*")));
    };
    Ok((QueueName::try_from(queue)?, Pattern::try_from(pattern)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<GearmanConfig> {
        GearmanConfig::from_url(text.parse()?)
    }

    #[test]
    fn a_url_names_servers_and_subscriptions() {
        let config =
            read("gearman://one,two:4731?subscribe=billing:order.*,audit:#&body=plain&state=none").unwrap();
        let shown: Vec<_> = config.endpoints.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["one:4730", "two:4731"]);
        assert_eq!(config.subscriptions.len(), 2);
        assert_eq!(config.body, Body::Plain);
        assert_eq!(config.state, None);
        assert_eq!(read("gearman://[::1]:4731").unwrap().endpoints[0].host, "::1");
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        for bad in [
            "gearman:",
            "gearman://host:port",
            "gearman://a,,b",
            "gearman://a?subscribe=billing",
            "gearman://a?subscribe=billing:order..x",
            "gearman://a?body=xml",
            "gearman://a?state=",
            "gearman://a?speed=high",
            "gearman://a?body_max=99999999999",
        ] {
            let error = read(bad).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{bad}");
        }
    }
}
