//! PostgreSQL and MySQL: the servers named by `ESTAFETTE_TEST_POSTGRES_URL` and `ESTAFETTE_TEST_MYSQL_URL`.

use super::Size;
use crate::case::{Case, Loop, Target};
use crate::floor::mysql::Hold;
use crate::{floor, ours};

/// The schema of Estafette's loops.
const SCHEMA: &str = "estafette_bench";

async fn postgres_url() -> anyhow::Result<String> {
    floor::postgres::clear(SCHEMA).await?;
    Ok(format!("{}?schema={SCHEMA}", floor::postgres::url()?))
}

async fn mysql_url() -> anyhow::Result<String> {
    floor::mysql::clear().await?;
    floor::mysql::url(floor::mysql::DATABASE)
}

/// The jobs on one of the servers, given how to get an empty database, the floor's two loops and what the latter is.
macro_rules! jobs {
    ($size:expr, $name:literal, $url:path, $publish:path, $consume:expr, $held:literal) => {{
        let mut cases = Vec::new();
        for (name, messages, batch) in [("one by one", 2_000, 1), ("in 100s", 50_000, 100)] {
            let messages = $size.of(messages);
            let floor = Loop::asynchronous(move |_| $publish(messages, batch));
            let publish = Loop::asynchronous(move |_| async move {
                ours::publish($url().await?, messages, batch as usize, 1).await
            });
            let case = Case::new(format!("{}: publish {name}", $name), floor);
            cases.push(case.ours(publish, Target::RatioMin(0.8)));
            let floor = Loop::asynchronous(move |_| $consume(messages, batch));
            let drain = Loop::asynchronous(move |_| async move {
                ours::drain($url().await?, messages, batch as usize).await
            });
            let case = Case::new(format!("{}: consume and ack {name}{}", $name, $held), floor);
            cases.push(case.ours(drain, Target::RatioMin(0.8)));
        }
        let pings = $size.of(300);
        let floor = Loop::asynchronous(move |_| $publish(pings, 1));
        let latency = Loop::asynchronous(move |_| async move { ours::latency($url().await?, pings).await });
        let name = format!("{}: publish to idle handler of another process (floor: publish)", $name);
        cases.push(Case::new(name, floor).ours(latency, Target::Shown));
        cases
    }};
}

/// The jobs of the SQL transport on PostgreSQL.
#[must_use]
pub fn postgres(size: Size) -> Vec<Case> {
    jobs!(size, "postgres", postgres_url, floor::postgres::publish, floor::postgres::consume, "")
}

/// The jobs of the SQL transport on MySQL or MariaDB.
#[must_use]
pub fn mysql(size: Size) -> Vec<Case> {
    let leased = |count, batch| floor::mysql::consume(count, batch, Hold::Lease);
    let mut cases = jobs!(size, "mysql", mysql_url, floor::mysql::publish, leased, " (floor: with a lease)");
    for (name, messages, batch) in [("one by one", size.of(2_000), 1), ("in 100s", size.of(50_000), 100)] {
        let floor = Loop::asynchronous(move |_| floor::mysql::consume(messages, batch, Hold::Transaction));
        let drain = Loop::asynchronous(move |_| async move {
            ours::drain(mysql_url().await?, messages, batch as usize).await
        });
        let case = Case::new(format!("mysql: consume and ack {name} (floor: without a lease)"), floor);
        cases.push(case.ours(drain, Target::Shown));
    }
    cases
}
