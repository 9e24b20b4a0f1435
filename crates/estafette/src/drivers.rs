//! The list of drivers: which URL scheme means which transport.
//!
//! Adding a transport is one entry here, one feature in `Cargo.toml` and one crate.

use std::{future::Future, pin::Pin, sync::Arc};

use estafette_core::{Error, ErrorKind, Result, Transport, TransportUrl};

/// A transport that can be chosen by URL.
#[derive(Clone, Copy, Debug)]
pub struct Driver {
    /// The transport's name.
    pub name: &'static str,
    /// The URL schemes it answers to.
    pub schemes: &'static [&'static str],
    /// A URL to show.
    pub example: &'static str,
    /// Connects to the engine; `None` when the cargo feature of that name is off in this build.
    pub connect: Option<Connect>,
}

/// Connects to the engine a URL names.
pub type Connect = fn(TransportUrl) -> Connecting;

/// A connection being made.
pub type Connecting = Pin<Box<dyn Future<Output = Result<Arc<dyn Transport>>> + Send>>;

/// An entry's `connect`, when its feature is on.
macro_rules! connect {
    ($feature:literal, $function:path) => {{
        #[cfg(feature = $feature)]
        let connect: Option<Connect> = Some(|url| Box::pin($function(url)));
        #[cfg(not(feature = $feature))]
        let connect: Option<Connect> = None;
        connect
    }};
}

/// Every driver.
pub const DRIVERS: &[Driver] = &[
    Driver {
        name: "memory",
        schemes: &["memory"],
        example: "memory:",
        connect: Some(|url| Box::pin(estafette_memory::connect(url))),
    },
    Driver {
        name: "file",
        schemes: &["file"],
        example: "file:./mail",
        connect: connect!("file", estafette_file::connect),
    },
    Driver {
        name: "sqlite",
        schemes: &["sqlite"],
        example: "sqlite:./mail.db",
        connect: connect!("sqlite", estafette_sql::connect),
    },
    Driver {
        name: "postgres",
        schemes: &["postgres", "postgresql"],
        example: "postgres://localhost/shop",
        connect: connect!("postgres", estafette_sql::connect),
    },
    Driver {
        name: "mysql",
        schemes: &["mysql", "mariadb"],
        example: "mysql://localhost/shop",
        connect: connect!("mysql", estafette_sql::connect),
    },
    Driver {
        name: "amqp",
        schemes: &["amqp", "amqps"],
        example: "amqp://localhost",
        connect: connect!("amqp", estafette_amqp::connect),
    },
    Driver {
        name: "gearman",
        schemes: &["gearman"],
        example: "gearman://localhost",
        connect: connect!("gearman", estafette_gearman::connect),
    },
];

/// Connects to the transport a URL names.
///
/// # Errors
///
/// [`ErrorKind::InvalidInput`] when the text is no URL or no driver answers to its scheme; [`ErrorKind::Unsupported`] when
/// the driver is not part of this build; those of the driver.
pub async fn connect(url: &str) -> Result<Arc<dyn Transport>> {
    let url: TransportUrl = url.parse()?;
    let Some(driver) = DRIVERS.iter().find(|driver| driver.schemes.contains(&url.scheme())) else {
        let known = DRIVERS.iter().map(|driver| driver.example).collect::<Vec<_>>().join(", ");
        let sentence = format!("no driver for the scheme {:?}; URLs look like {known}", url.scheme());
        return Err(Error::new(ErrorKind::InvalidInput, sentence));
    };
    let Some(connect) = driver.connect else {
        let name = driver.name;
        let sentence =
            format!("this build lacks the driver {name}; turn on the cargo feature {name:?} of estafette");
        return Err(Error::new(ErrorKind::Unsupported, sentence));
    };
    connect(url).await
}
