//! What the tests share.

use std::time::Duration;

use estafette_core::{
    Delivery, Envelope, MessageId, Outcome, Outgoing, QueueName, QueueSpec, ReceiveOptions, Receiver, Result,
    Transport, settle_all,
};
use estafette_sql::{ServerConfig, SqlTransport};
use sqlx::{AssertSqlSafe, Connection as _, MySqlConnection, PgConnection};

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A place in a database that only one test has, and that goes with it.
pub(crate) struct Place {
    server: String,
    pub(crate) name: String,
    pub(crate) url: String,
}

impl Place {
    /// A schema of PostgreSQL.
    pub(crate) async fn postgres() -> Self {
        let (server, name) = (server("ESTAFETTE_TEST_POSTGRES_URL"), unique());
        let url = format!("{server}?schema={name}");
        Self { server, name, url }
    }

    /// A database of MySQL or MariaDB.
    pub(crate) async fn mysql() -> Self {
        let (server, name) = (server("ESTAFETTE_TEST_MYSQL_URL"), unique());
        let (address, _database) = server.rsplit_once('/').expect("the URL names a database");
        let url = format!("{address}/{name}");
        let place = Self { server: server.clone(), name, url };
        place.execute(&format!("CREATE DATABASE {}", place.name)).await;
        place
    }

    /// Executes a statement of the server's.
    pub(crate) async fn execute(&self, sql: &str) {
        if self.server.starts_with("postgres") {
            let mut connection = PgConnection::connect(&self.server).await.unwrap();
            sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await.unwrap();
        } else {
            let mut connection = MySqlConnection::connect(&self.server).await.unwrap();
            sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await.unwrap();
        }
    }

    /// Removes it.
    pub(crate) async fn clear(self) {
        let what = if self.server.starts_with("postgres") { "SCHEMA" } else { "DATABASE" };
        let cascade = if what == "SCHEMA" { "CASCADE" } else { "" };
        self.execute(&format!("DROP {what} {} {cascade}", self.name)).await;
    }
}

fn unique() -> String {
    format!("estafette_{}", MessageId::new().to_string().replace('-', ""))
}

fn server(variable: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| {
        panic!(
            "this test needs {variable}: run `scripts/services up`, then `eval \"$(scripts/services env)\"`"
        )
    })
}

pub(crate) async fn open(url: &str) -> SqlTransport {
    let config = ServerConfig::from_url(url.parse().unwrap()).unwrap();
    SqlTransport::connect_to_server(config).await.unwrap()
}

pub(crate) fn queue_name() -> QueueName {
    "work".parse().unwrap()
}

pub(crate) async fn open_with_queue(url: &str) -> SqlTransport {
    let transport = open(url).await;
    transport.declare(&QueueSpec::durable(queue_name())).await.unwrap();
    transport
}

pub(crate) fn numbered(number: usize) -> Outgoing {
    let body = number.to_string().into_bytes();
    Outgoing::send(queue_name(), Envelope::new("work.made".parse().unwrap(), body.into()))
}

pub(crate) fn number_of(delivery: &Delivery) -> usize {
    std::str::from_utf8(&delivery.envelope().body).unwrap().parse().unwrap()
}

pub(crate) async fn send(transport: &SqlTransport, numbers: std::ops::Range<usize>) -> Result<()> {
    let batch: Vec<_> = numbers.map(numbered).collect();
    transport.publish(&batch).await.into_iter().try_for_each(|result| result.map(drop))
}

pub(crate) async fn receiver(transport: &SqlTransport, lease: Duration) -> Box<dyn Receiver> {
    let options = ReceiveOptions { lease, ..ReceiveOptions::default() };
    transport.receiver(&queue_name(), options).await.unwrap()
}

pub(crate) async fn ack_all(taken: Vec<Delivery>) -> Vec<Result<()>> {
    settle_all(taken.into_iter().map(|delivery| (delivery, Outcome::Ack)).collect()).await
}
