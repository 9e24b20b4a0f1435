//! Settings of a database on a server.

use std::time::Duration;

use estafette_core::{Error, ErrorKind, Result, TransportUrl};

/// Which kind of server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// PostgreSQL.
    #[cfg(feature = "postgres")]
    Postgres,
    /// MySQL or MariaDB.
    #[cfg(feature = "mysql")]
    MySql,
}

impl Engine {
    fn of(scheme: &str) -> Option<Self> {
        match scheme {
            #[cfg(feature = "postgres")]
            "postgres" | "postgresql" => Some(Self::Postgres),
            #[cfg(feature = "mysql")]
            "mysql" | "mariadb" => Some(Self::MySql),
            _ => None,
        }
    }
}

/// Settings of a [`SqlTransport`](crate::SqlTransport) on PostgreSQL, MySQL or MariaDB.
#[derive(Clone)]
pub struct ServerConfig {
    /// Which kind of server.
    pub engine: Engine,
    /// The address as the client library reads it, with user, password, database and the settings of TLS.
    pub address: String,
    /// PostgreSQL: the schema that holds the tables, made when it is missing; the connection's own when `None`. (`schema`)
    pub schema: Option<String>,
    /// Whether connecting brings the tables up to date; yes by default. (`migrate=off`)
    pub migrate: bool,
    /// Whether PostgreSQL tells consumers of new messages; else they look for themselves, as on MySQL. (`notify=off`)
    pub notify: bool,
    /// How many connections do the work at most, at least 2; 4 by default. PostgreSQL has one more that listens.
    /// (`connections`)
    pub connections: usize,
    /// How long an operation waits for a server that is away before it fails; 30 seconds by default. (`patience`)
    pub patience: Duration,
    /// The largest body, in bytes; 16 MiB on PostgreSQL and 8 MiB on MySQL by default. (`body_max`)
    pub body_bytes_max: usize,
}

impl std::fmt::Debug for ServerConfig {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The address may hold a password.
        formatter.debug_struct("ServerConfig").field("engine", &self.engine).finish_non_exhaustive()
    }
}

/// Settings of the client libraries that may be in the URL, the TLS ones above all.
const PASSED_ON: [&str; 12] = [
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "host",
    "user",
    "ssl-mode",
    "ssl-ca",
    "ssl-cert",
    "ssl-key",
    "socket",
    "password",
];

impl ServerConfig {
    /// Whether URLs of this scheme name a server's database.
    #[must_use]
    pub fn answers_to(scheme: &str) -> bool {
        Engine::of(scheme).is_some()
    }

    /// The settings in a URL such as `postgres://shop@db.example/shop?schema=mail`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`] for another scheme, an unknown setting or a value that cannot be read.
    pub fn from_url(mut url: TransportUrl) -> Result<Self> {
        let invalid = |sentence: String| Error::new(ErrorKind::InvalidInput, sentence);
        let Some(engine) = Engine::of(url.scheme()) else {
            return Err(invalid(format!("{} is no scheme of a database server", url.scheme())));
        };
        let (scheme, body_bytes_max) = match engine {
            #[cfg(feature = "postgres")]
            Engine::Postgres => ("postgres", 16 << 20),
            #[cfg(feature = "mysql")]
            Engine::MySql => ("mysql", 8 << 20),
        };
        let mut address = format!("{scheme}:{}", url.address());
        for name in PASSED_ON {
            if let Some(value) = url.take(name) {
                address.push(if address.contains('?') { '&' } else { '?' });
                address.extend([name, "=", &value]);
            }
        }
        let is_on = |url: &mut TransportUrl, name: &'static str| match url.take(name).as_deref() {
            None | Some("on") => Ok(true),
            Some("off") => Ok(false),
            Some(other) => Err(invalid(format!("{name}={other} is neither on nor off"))),
        };
        let schema = url.take("schema");
        if let Some(schema) = &schema {
            check_schema(schema)?;
        }
        let config = Self {
            engine,
            address,
            schema,
            migrate: is_on(&mut url, "migrate")?,
            notify: is_on(&mut url, "notify")?,
            connections: url.take_parsed("connections")?.unwrap_or(4).max(2),
            patience: url.take_duration("patience")?.unwrap_or(Duration::from_secs(30)),
            body_bytes_max: url.take_parsed("body_max")?.unwrap_or(body_bytes_max),
        };
        url.finish()?;
        #[cfg(feature = "mysql")]
        if engine == Engine::MySql && config.schema.is_some() {
            return Err(invalid(
                "schema is a setting of PostgreSQL; on MySQL name the database in the path".into(),
            ));
        }
        Ok(config)
    }
}

/// A schema's name becomes part of SQL and of the connection's options.
fn check_schema(schema: &str) -> Result<()> {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    let begins = schema.starts_with(|first: char| first.is_ascii_lowercase() || first == '_');
    if begins && schema.len() <= 63 && schema.bytes().all(is_plain) {
        return Ok(());
    }
    let sentence = format!("schema={schema} must be 1 to 63 of a-z, 0-9 and _, and not begin with a digit");
    Err(Error::new(ErrorKind::InvalidInput, sentence))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(url: &str) -> Result<ServerConfig> {
        ServerConfig::from_url(url.parse()?)
    }

    #[cfg(feature = "postgres")]
    #[test]
    fn ours_are_taken_and_the_librarys_are_passed_on() {
        let url = "postgresql://ada:secret@db/shop?sslmode=require&schema=mail&migrate=off&patience=2s";
        let settings = config(url).unwrap();
        assert_eq!(settings.address, "postgres://ada:secret@db/shop?sslmode=require");
        assert_eq!((settings.schema.as_deref(), settings.migrate), (Some("mail"), false));
        assert_eq!(settings.patience, Duration::from_secs(2));
        assert!(!format!("{settings:?}").contains("secret"));
        for bad in ["?schema=a;b", "?schema=", "?migrate=perhaps", "?body_max=big", "?ssl=1"] {
            let error = config(&format!("postgres://db/shop{bad}")).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{bad}");
        }
    }

    #[cfg(feature = "mysql")]
    #[test]
    fn a_schema_is_postgresqls() {
        assert_eq!(config("mariadb://db/shop").unwrap().engine, Engine::MySql);
        assert_eq!(config("mysql://db/shop?schema=x").unwrap_err().kind(), ErrorKind::InvalidInput);
    }
}
