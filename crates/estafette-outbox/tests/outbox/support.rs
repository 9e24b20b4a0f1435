//! A database of one's own for each test, and a transport that records, refuses and goes away.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use estafette_core::{
    Admin, Envelope, Error, ErrorKind, Guarantees, Outgoing, QueueName, QueueSpec, Receipt, ReceiveOptions,
    Receiver, Result, Routing, Topic, Transport, async_trait,
};
use estafette_outbox::{Dialect, Entry, Executor, Outbox, Store};
use sqlx::{Connection as _, MySqlConnection, PgConnection, SqliteConnection};

/// A database with the tables and one more, `orders`, which goes away with this.
pub(crate) struct Base {
    pub(crate) url: String,
    pub(crate) store: Store,
    _folder: tempfile::TempDir,
}

/// A connection to it, as an application has one.
pub(crate) enum Link {
    Postgres(PgConnection),
    MySql(MySqlConnection),
    Sqlite(SqliteConnection),
}

static NUMBER: AtomicU64 = AtomicU64::new(0);

impl Base {
    /// A new database.
    pub(crate) async fn new(dialect: Dialect) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let name = format!("outbox_{}_{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let url = match dialect {
            Dialect::Sqlite => format!("sqlite:{}/app.db", folder.path().display()),
            Dialect::Postgres => created(server("ESTAFETTE_TEST_POSTGRES_URL"), &name).await,
            Dialect::MySql => created(server("ESTAFETTE_TEST_MYSQL_URL"), &name).await,
        };
        let store = Store::open(&url).unwrap();
        store.init().await.unwrap();
        store.init().await.unwrap();
        let base = Self { url, store, _folder: folder };
        let id = if dialect == Dialect::MySql { "BIGINT AUTO_INCREMENT" } else { "BIGINT" };
        let sql = format!("CREATE TABLE orders (id {id} PRIMARY KEY)");
        base.link().await.run(&sql).await;
        base.link().await.run("CREATE TABLE effects (id BIGINT NOT NULL)").await;
        base
    }

    pub(crate) async fn link(&self) -> Link {
        Link::open(&self.url).await.unwrap()
    }

    /// Writes events, each in a transaction of its own.
    pub(crate) async fn write(&self, entries: impl IntoIterator<Item = Entry>) {
        let mut link = self.link().await;
        link.run("BEGIN").await;
        for entry in entries {
            entry.publish(link.executor()).await.unwrap();
        }
        link.run("COMMIT").await;
    }
}

fn server(variable: &str) -> String {
    let Ok(url) = std::env::var(variable) else {
        panic!(
            "this test needs servers: run `scripts/services up`, then `eval \"$(scripts/services env)\"`, which sets \
             {variable}"
        );
    };
    url
}

/// The URL of a new database of a server.
async fn created(server: String, name: &str) -> String {
    let sql = sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"));
    if server.starts_with("postgres") {
        let mut link = PgConnection::connect(&server).await.unwrap();
        sqlx::query(sql).execute(&mut link).await.unwrap();
    } else {
        let mut link = MySqlConnection::connect(&server).await.unwrap();
        sqlx::query(sql).execute(&mut link).await.unwrap();
    }
    let (host, _) = server.rsplit_once('/').unwrap();
    format!("{host}/{name}")
}

impl Link {
    pub(crate) async fn open(url: &str) -> sqlx::Result<Self> {
        match url.split(':').next() {
            Some("postgres") => Ok(Self::Postgres(PgConnection::connect(url).await?)),
            Some("mysql") => Ok(Self::MySql(MySqlConnection::connect(url).await?)),
            _ => Ok(Self::Sqlite(SqliteConnection::connect(url).await?)),
        }
    }

    pub(crate) async fn script(&mut self, sql: &str) -> sqlx::Result<()> {
        let sql = sqlx::AssertSqlSafe(sql);
        match self {
            Self::Postgres(link) => sqlx::raw_sql(sql).execute(link).await.map(drop),
            Self::MySql(link) => sqlx::raw_sql(sql).execute(link).await.map(drop),
            Self::Sqlite(link) => sqlx::raw_sql(sql).execute(link).await.map(drop),
        }
    }

    pub(crate) async fn run(&mut self, sql: &str) {
        self.script(sql).await.unwrap();
    }

    pub(crate) async fn number(&mut self, sql: &str) -> i64 {
        let sql = sqlx::AssertSqlSafe(sql);
        match self {
            Self::Postgres(link) => sqlx::query_scalar(sql).fetch_one(link).await,
            Self::MySql(link) => sqlx::query_scalar(sql).fetch_one(link).await,
            Self::Sqlite(link) => sqlx::query_scalar(sql).fetch_one(link).await,
        }
        .unwrap()
    }

    pub(crate) fn executor(&mut self) -> &mut dyn Executor {
        match self {
            Self::Postgres(link) => link,
            Self::MySql(link) => link,
            Self::Sqlite(link) => link,
        }
    }
}

/// An event about the order `order`, the `number`th of it.
pub(crate) fn event(order: u32, number: u32) -> Entry {
    let topic: Topic = "order.changed".try_into().unwrap();
    let envelope = Envelope::new(topic, format!("{order}:{number}").into());
    Outbox::new("tests").envelope(envelope).subject("order", order)
}

/// Records what is published. Refuses bodies it was told of, and is away when told so.
#[derive(Default)]
pub(crate) struct Recorder {
    pub(crate) published: Mutex<Vec<Envelope>>,
    pub(crate) refused: Mutex<Vec<String>>,
    pub(crate) is_away: AtomicBool,
}

impl Recorder {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    pub(crate) fn bodies(&self) -> Vec<String> {
        let published = self.published.lock().unwrap();
        published.iter().map(|envelope| String::from_utf8(envelope.body.to_vec()).unwrap()).collect()
    }

    pub(crate) fn refuse(&self, bodies: &[&str]) {
        *self.refused.lock().unwrap() = bodies.iter().map(ToString::to_string).collect();
    }
}

#[async_trait]
impl Transport for Recorder {
    fn guarantees(&self) -> Guarantees {
        estafette_memory::MemoryTransport::default().guarantees()
    }

    async fn declare(&self, _queue: &QueueSpec) -> Result<()> {
        Ok(())
    }

    async fn publish(&self, batch: &[Outgoing]) -> Vec<Result<Receipt>> {
        // Other relays get a turn while this one waits for its confirmation.
        tokio::time::sleep(Duration::from_millis(1)).await;
        let publish = |outgoing: &Outgoing| {
            if self.is_away.load(Ordering::Relaxed) {
                return Err(Error::new(ErrorKind::Unavailable, "away"));
            }
            let body = String::from_utf8_lossy(&outgoing.envelope.body).into_owned();
            if self.refused.lock().unwrap().contains(&body) {
                return Err(Error::new(ErrorKind::TooLarge, "refused"));
            }
            self.published.lock().unwrap().push((*outgoing.envelope).clone());
            Ok(Receipt { id: outgoing.envelope.id.clone(), routing: Routing::Routed })
        };
        batch.iter().map(publish).collect()
    }

    async fn receiver(&self, _queue: &QueueName, _options: ReceiveOptions) -> Result<Box<dyn Receiver>> {
        Err(ErrorKind::Unsupported.into())
    }

    fn admin(&self) -> &dyn Admin {
        unreachable!("not part of these tests")
    }

    async fn close(&self) -> Result<()> {
        Ok(())
    }
}

/// The same test on each database.
macro_rules! on_every_database {
    ($($name:ident),* $(,)?) => {
        mod sqlite {
            $(#[tokio::test] async fn $name() {
                super::$name(crate::support::Base::new(estafette_outbox::Dialect::Sqlite).await).await
            })*
        }
        mod postgres {
            $(#[tokio::test] async fn $name() {
                super::$name(crate::support::Base::new(estafette_outbox::Dialect::Postgres).await).await
            })*
        }
        mod mysql {
            $(#[tokio::test] async fn $name() {
                super::$name(crate::support::Base::new(estafette_outbox::Dialect::MySql).await).await
            })*
        }
    };
}
pub(crate) use on_every_database;
