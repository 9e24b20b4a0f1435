//! Settings of the transport, and how a URL spells them.

use std::{fmt, path::PathBuf, str::FromStr, time::Duration};

use estafette_core::{Error, ErrorKind, Result, TransportUrl};

/// Settings of an [`AmqpTransport`](crate::AmqpTransport). Names in brackets are those in a URL.
#[derive(Clone, Debug)]
pub struct AmqpConfig {
    /// The brokers, tried in this order; one is enough.
    pub endpoints: Vec<Endpoint>,
    /// Who connects; `guest` by default.
    pub user: String,
    /// The user's password; `guest` by default.
    pub password: Password,
    /// The virtual host; `/` by default.
    pub vhost: String,
    /// How TLS is used; not at all when absent. (`amqps:`, `cacertfile`, `server_name`)
    pub tls: Option<Tls>,
    /// What the broker's tools call the connection; `estafette` by default. (`connection_name`)
    pub connection_name: String,
    /// How often each side says that it is alive, in whole seconds; a connection that is silent for two of them is given up.
    /// Zero turns it off. 10 seconds by default. (`heartbeat`)
    pub heartbeat: Duration,
    /// How long connecting to one broker may take; 5 seconds by default. (`connect_timeout`)
    pub connect_timeout: Duration,
    /// How long a call waits for a broker that is away, blocked or silent before it fails; 30 seconds by default.
    /// (`patience`)
    pub patience: Duration,
    /// How many publications may be unconfirmed at once; 1,000 by default. (`window`)
    pub window: usize,
    /// How many deliveries a receiver fetches ahead at most; 1,000 by default. (`prefetch`)
    pub prefetch: u16,
    /// The largest body, in bytes; 16 MiB by default, as in RabbitMQ 4. (`body_max`)
    pub body_bytes_max: usize,
    /// Which exchanges carry the topics. (`exchange`, `exchange_type`)
    pub exchanges: Exchanges,
    /// What makes a queue. (`queue_type`, `queue_arguments`)
    pub queue_type: QueueType,
    /// Arguments of every durable queue, besides ours: names and values. (`queue_arguments=x-max-length:1000`)
    pub queue_arguments: Vec<(String, Argument)>,
    /// Whether exchanges and queues are made, or must be there and are used as they are. (`declare=passive`)
    pub declaring: Declaring,
    /// How long a temporary queue outlives its receiver when that ends without closing it; half a minute
    /// by default. (`temporary_expires`)
    pub temporary_expires: Duration,
    /// Whose wire format is written. (`compat`)
    pub compat: Compat,
}

/// A broker's address.
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

/// A password; `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(String);

impl Password {
    /// Keeps `text` from being shown.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Password")
    }
}

/// How TLS is used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// The only certificates trusted, a PEM file; those of the system when absent.
    pub ca_file: Option<PathBuf>,
    /// The name in the broker's certificate; the host when absent.
    pub server_name: Option<String>,
}

/// Which exchanges carry the topics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exchanges {
    /// A topic exchange for each first word: `order.created` is published to `order`.
    FirstWord,
    /// One exchange for all.
    One {
        /// Its name.
        name: String,
        /// Its type: `topic`, `direct`, `fanout` or that of a plug-in.
        kind: String,
    },
}

/// How the broker keeps queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum QueueType {
    /// On one node.
    #[default]
    Classic,
    /// On several nodes, by consensus.
    Quorum,
}

/// The value of a queue's argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Argument {
    /// A whole number.
    Int(i64),
    /// `true` or `false`.
    Bool(bool),
    /// Anything else.
    Text(String),
}

/// Whether exchanges and queues are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Declaring {
    /// They are made when missing; those that exist must have the same settings.
    #[default]
    Active,
    /// They must exist and are used as they are, whatever their settings.
    Passive,
}

/// Whose wire format is written. Every format is read, whatever this says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Compat {
    /// Estafette's own: CloudEvents attributes, queues with dead letters.
    #[default]
    None,
    /// That of `chocofamilyme/pubsub`: its properties and the header `span_id`; queues without arguments of ours.
    Chocofamily,
    /// That of AsyncEventDispatcher: the direct exchange `async_event_dispatcher`, routing keys `aed.rk.<event>`; queues
    /// without arguments of ours.
    Aed,
}

impl AmqpConfig {
    /// The default settings for these brokers.
    #[must_use]
    pub fn new(endpoints: Vec<Endpoint>) -> Self {
        Self {
            endpoints,
            user: "guest".into(),
            password: Password::new("guest"),
            vhost: "/".into(),
            tls: None,
            connection_name: "estafette".into(),
            heartbeat: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(5),
            patience: Duration::from_secs(30),
            window: 1000,
            prefetch: 1000,
            body_bytes_max: 16 << 20,
            exchanges: Exchanges::FirstWord,
            queue_type: QueueType::Classic,
            queue_arguments: Vec::new(),
            declaring: Declaring::Active,
            temporary_expires: Duration::from_secs(30),
            compat: Compat::None,
        }
    }

    /// The settings in a URL such as `amqp://user:password@one,two:5673/vhost?queue_type=quorum`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`] for an address that cannot be read, an unknown setting or a value that does not fit.
    pub fn from_url(mut url: TransportUrl) -> Result<Self> {
        let encrypted = url.scheme() == "amqps";
        let mut config = Self::of_address(url.address(), if encrypted { 5671 } else { 5672 })?;
        let default = config.clone();
        if encrypted {
            let ca_file = take_text(&mut url, "cacertfile")?.map(PathBuf::from);
            config.tls = Some(Tls { ca_file, server_name: take_text(&mut url, "server_name")? });
        }
        let duration = |url: &mut TransportUrl, name, default| {
            url.take_duration(name).map(|given| given.unwrap_or(default))
        };
        config.connection_name = take_text(&mut url, "connection_name")?.unwrap_or(default.connection_name);
        config.heartbeat = duration(&mut url, "heartbeat", default.heartbeat)?;
        config.connect_timeout = duration(&mut url, "connect_timeout", default.connect_timeout)?;
        config.patience = duration(&mut url, "patience", default.patience)?;
        config.temporary_expires = duration(&mut url, "temporary_expires", default.temporary_expires)?;
        config.window = url.take_parsed("window")?.unwrap_or(default.window).max(1);
        config.prefetch = url.take_parsed("prefetch")?.unwrap_or(default.prefetch).max(1);
        config.body_bytes_max = url.take_parsed("body_max")?.unwrap_or(default.body_bytes_max);
        config.compat = url.take_parsed("compat")?.unwrap_or_default();
        config.declaring = url.take_parsed("declare")?.unwrap_or_default();
        config.queue_type = url.take_parsed("queue_type")?.unwrap_or_default();
        if let Some(text) = take_text(&mut url, "queue_arguments")? {
            config.queue_arguments = parse_arguments(&text)?;
        }
        let exchange = take_text(&mut url, "exchange")?;
        let kind = take_text(&mut url, "exchange_type")?;
        config.exchanges = exchanges(exchange, kind, config.compat)?;
        url.finish()?;
        Ok(config)
    }

    fn of_address(address: &str, default_port: u16) -> Result<Self> {
        let invalid = |problem: &str| {
            let sentence = format!("{problem}; RabbitMQ URLs look like amqp://user:password@host:5672/vhost");
            Error::new(ErrorKind::InvalidInput, sentence)
        };
        let rest = address.strip_prefix("//").ok_or_else(|| invalid("the address has no //"))?;
        let (authority, vhost) = rest.split_once('/').unwrap_or((rest, ""));
        let (credentials, hosts) = match authority.rsplit_once('@') {
            Some((credentials, hosts)) => (Some(credentials), hosts),
            None => (None, authority),
        };
        let endpoints = hosts
            .split(',')
            .map(|text| {
                endpoint(text, default_port).ok_or_else(|| invalid(&format!("host {text:?} cannot be read")))
            })
            .collect::<Result<Vec<_>>>()?;
        let mut config = Self::new(endpoints);
        if let Some(credentials) = credentials {
            let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
            config.user = percent_decode(user)?;
            config.password = Password::new(percent_decode(password)?);
        }
        if !vhost.is_empty() {
            config.vhost = percent_decode(vhost)?;
        }
        Ok(config)
    }
}

fn endpoint(text: &str, default_port: u16) -> Option<Endpoint> {
    // An IPv6 address stands in brackets.
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, port)) => (host, port.strip_prefix(':')),
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let port = port.map_or(Some(default_port), |port| port.parse().ok())?;
    if host.is_empty() { None } else { Some(Endpoint { host: host.to_owned(), port }) }
}

fn exchanges(name: Option<String>, kind: Option<String>, compat: Compat) -> Result<Exchanges> {
    match (name, kind) {
        (Some(name), kind) => Ok(Exchanges::One { name, kind: kind.unwrap_or_else(|| "topic".into()) }),
        (None, None) if compat == Compat::Aed => {
            Ok(Exchanges::One { name: "async_event_dispatcher".into(), kind: "direct".into() })
        }
        (None, None) => Ok(Exchanges::FirstWord),
        (None, Some(_)) => {
            let sentence = "exchange_type is only for a given exchange; the exchange of a first word is a topic exchange";
            Err(Error::new(ErrorKind::InvalidInput, sentence))
        }
    }
}

fn take_text(url: &mut TransportUrl, name: &'static str) -> Result<Option<String>> {
    url.take(name).map(|text| percent_decode(&text)).transpose()
}

fn percent_decode(text: &str) -> Result<String> {
    let invalid =
        || Error::new(ErrorKind::InvalidInput, "the URL has a % that two hexadecimal digits do not follow");
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || char::from(rest.next()?).to_digit(16);
        let (high, low) = digit().zip(digit()).ok_or_else(invalid)?;
        bytes.push(u8::try_from(high << 4 | low).unwrap_or_default());
    }
    String::from_utf8(bytes).map_err(|source| Error::new(ErrorKind::InvalidInput, source))
}

fn parse_arguments(text: &str) -> Result<Vec<(String, Argument)>> {
    let parse = |pair: &str| match pair.split_once(':') {
        Some((name, value)) if !name.is_empty() => {
            let argument = match (value.parse(), value.parse()) {
                (Ok(number), _) => Argument::Int(number),
                (_, Ok(truth)) => Argument::Bool(truth),
                _ => Argument::Text(value.to_owned()),
            };
            Ok((name.to_owned(), argument))
        }
        _ => {
            let sentence = format!("queue_arguments: {pair:?} is not name:value");
            Err(Error::new(ErrorKind::InvalidInput, sentence))
        }
    };
    text.split(',').filter(|pair| !pair.is_empty()).map(parse).collect()
}

macro_rules! words {
    ($name:ident { $($word:literal => $variant:ident),+ $(,)? }) => {
        impl FromStr for $name {
            type Err = Error;

            fn from_str(text: &str) -> Result<Self> {
                match text {
                    $($word => Ok(Self::$variant),)+
                    _ => Err(ErrorKind::InvalidInput.into()),
                }
            }
        }
    };
}

words!(QueueType { "classic" => Classic, "quorum" => Quorum });
words!(Declaring { "active" => Active, "passive" => Passive });
words!(Compat { "none" => None, "chocofamily" => Chocofamily, "aed" => Aed });

#[cfg(test)]
mod tests {
    use super::*;

    fn config(url: &str) -> Result<AmqpConfig> {
        AmqpConfig::from_url(url.parse()?)
    }

    #[test]
    fn a_url_names_brokers_credentials_and_vhost() {
        let config = config("amqp://us%40er:p%3Aw@one,two:5673,[::1]:5674/a%2Fb").unwrap();
        let hosts: Vec<String> = config.endpoints.iter().map(ToString::to_string).collect();
        assert_eq!(hosts, ["one:5672", "two:5673", "::1:5674"]);
        assert_eq!((&*config.user, config.password.expose(), &*config.vhost), ("us@er", "p:w", "a/b"));
        assert!(!format!("{config:?}").contains("p:w"));
    }

    #[test]
    fn settings_have_defaults_and_limits() {
        let config = config("amqps://host?window=0&queue_type=quorum&queue_arguments=x-max-length:5,x-overflow:reject-publish").unwrap();
        assert_eq!((config.window, config.queue_type, config.vhost.as_str()), (1, QueueType::Quorum, "/"));
        assert_eq!(config.endpoints, [Endpoint { host: "host".into(), port: 5671 }]);
        assert_eq!(config.queue_arguments.first(), Some(&("x-max-length".into(), Argument::Int(5))));
        assert!(config.tls.is_some());
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        for bad in [
            "amqp:host",
            "amqp://",
            "amqp://h:x",
            "amqp://h?windw=1",
            "amqp://h?compat=php",
            "amqp://u%4@h",
            "amqp://h?exchange_type=direct",
        ] {
            assert!(config(bad).is_err(), "{bad}");
        }
    }
}
