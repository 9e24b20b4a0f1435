//! PostgreSQL and MySQL: the servers named by `ESTAFETTE_TEST_POSTGRES_URL` and `ESTAFETTE_TEST_MYSQL_URL`.

use super::Size;
use crate::case::{Case, Loop, Target};
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

/// The jobs on one of the servers, given how to get an empty database and the floor's two loops.
macro_rules! jobs {
    ($size:expr, $name:literal, $url:path, $floor:path) => {{
        use $floor as bare;
        let mut cases = Vec::new();
        for (name, messages, batch) in [("one by one", 5_000, 1), ("in 100s", 100_000, 100)] {
            let messages = $size.of(messages);
            let floor = Loop::asynchronous(move |_| bare::publish(messages, batch));
            let publish = Loop::asynchronous(move |_| async move {
                ours::publish($url().await?, messages, batch as usize, 1).await
            });
            let case = Case::new(format!("{}: publish {name}", $name), floor);
            cases.push(case.ours(publish, Target::RatioMin(0.8)));
            let floor = Loop::asynchronous(move |_| bare::consume(messages, batch));
            let drain = Loop::asynchronous(move |_| async move {
                ours::drain($url().await?, messages, batch as usize).await
            });
            let case = Case::new(format!("{}: consume and ack {name}", $name), floor);
            cases.push(case.ours(drain, Target::RatioMin(0.8)));
        }
        let pings = $size.of(300);
        let floor = Loop::asynchronous(move |_| bare::publish(pings, 1));
        let latency = Loop::asynchronous(move |_| async move { ours::latency($url().await?, pings).await });
        let name = format!("{}: publish to idle handler of another process (floor: publish)", $name);
        cases.push(Case::new(name, floor).ours(latency, Target::Shown));
        cases
    }};
}

/// The jobs of the SQL transport on PostgreSQL.
#[must_use]
pub fn postgres(size: Size) -> Vec<Case> {
    jobs!(size, "postgres", postgres_url, floor::postgres)
}

/// The jobs of the SQL transport on MySQL or MariaDB.
#[must_use]
pub fn mysql(size: Size) -> Vec<Case> {
    jobs!(size, "mysql", mysql_url, floor::mysql)
}
