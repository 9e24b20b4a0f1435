//! Consumers that wait: told at once, and at rest in between.

use std::time::{Duration, Instant};

use estafette_core::{Receiver, Transport as _};
use sqlx::{Connection as _, PgConnection};

use crate::common::{PATIENCE, Place, ack_all, open, open_with_queue, receiver, send};

/// From publishing on one connection to a delivery on another's, the middle of many tries.
async fn latency(url: &str) -> Duration {
    let publisher = open_with_queue(url).await;
    let consumer = open(url).await;
    let mut receiver: Box<dyn Receiver> = receiver(&consumer, PATIENCE).await;
    let mut times = Vec::new();
    for number in 0..21 {
        let (taken, started) = tokio::join!(receiver.receive(1, PATIENCE), async {
            // The receiver is waiting by then: what is measured is the word, not the look.
            tokio::time::sleep(Duration::from_millis(50)).await;
            let started = Instant::now();
            send(&publisher, number..number + 1).await.unwrap();
            started
        });
        times.push(started.elapsed());
        ack_all(taken.unwrap()).await.into_iter().collect::<Result<Vec<_>, _>>().unwrap();
    }
    drop(receiver);
    publisher.close().await.unwrap();
    consumer.close().await.unwrap();
    times.sort();
    times.into_iter().nth(10).unwrap()
}

#[tokio::test]
async fn postgres_tells_another_process_long_before_it_would_look() {
    let place = Place::postgres().await;
    let median = latency(&place.url).await;
    // A look without a word comes after five seconds.
    assert!(median < Duration::from_secs(1), "{median:?}");
    place.clear().await;
}

#[tokio::test]
async fn without_notifications_postgres_is_asked_as_mysql_is() {
    let place = Place::postgres().await;
    let median = latency(&format!("{}&notify=off", place.url)).await;
    assert!(median < Duration::from_secs(1), "{median:?}");
    place.clear().await;
}

#[tokio::test]
async fn an_idle_consumer_on_postgres_hardly_asks() {
    let place = Place::postgres().await;
    let transport = open_with_queue(&format!("{}&connections=2", place.url)).await;
    let mut receiver = receiver(&transport, PATIENCE).await;
    assert!(receiver.receive(1, Duration::from_millis(500)).await.unwrap().is_empty());
    let scans = async || -> i64 {
        let mut connection = PgConnection::connect(place.url.split('?').next().unwrap()).await.unwrap();
        let sql = "SELECT coalesce(sum(idx_scan + seq_scan), 0)::bigint FROM pg_stat_user_tables
            WHERE schemaname = $1 AND relname = 'estafette_message'";
        sqlx::query_scalar(sql).bind(&place.name).fetch_one(&mut connection).await.unwrap()
    };
    // Statistics reach the table when a connection is idle for a second.
    let before = scans().await;
    assert!(receiver.receive(1, Duration::from_secs(4)).await.unwrap().is_empty());
    let asked = scans().await - before;
    assert!(asked <= 12, "{asked} looks at the table in four idle seconds");
    drop(receiver);
    transport.close().await.unwrap();
    place.clear().await;
}
