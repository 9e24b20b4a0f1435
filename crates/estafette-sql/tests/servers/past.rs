//! A queue with a long past is as fast as a new one, and statements go by their index.

use std::time::{Duration, Instant};

use estafette_core::Transport as _;
use estafette_sql::SqlTransport;
use sqlx::{Connection as _, PgConnection, Row as _};

use crate::common::{PATIENCE, Place, ack_all, open_with_queue, receiver, send};

const BATCH: usize = 100;

/// How many messages make a long past: more with `ESTAFETTE_TEST_LONG=1`.
fn past() -> usize {
    if std::env::var_os("ESTAFETTE_TEST_LONG").is_some() { 1_000_000 } else { 20_000 }
}

/// How long ten batches take to pass, the fastest of several times, as others use the machine.
async fn passing(transport: &SqlTransport) -> Duration {
    let mut fastest = Duration::MAX;
    for _ in 0..5 {
        let started = Instant::now();
        pass(transport, 10 * BATCH).await;
        fastest = fastest.min(started.elapsed());
    }
    fastest
}

/// Publishes and consumes so many messages.
async fn pass(transport: &SqlTransport, count: usize) {
    let mut receiver = receiver(transport, PATIENCE).await;
    for start in (0..count).step_by(BATCH) {
        send(transport, start..start + BATCH).await.unwrap();
        let mut left = BATCH;
        while left > 0 {
            let taken = receiver.receive(left, PATIENCE).await.unwrap();
            assert!(!taken.is_empty(), "messages went missing");
            left -= taken.len();
            ack_all(taken).await.into_iter().collect::<Result<Vec<_>, _>>().unwrap();
        }
    }
}

async fn stays_fast(place: Place) {
    let transport = open_with_queue(&place.url).await;
    pass(&transport, 10 * BATCH).await;
    let new = passing(&transport).await;
    pass(&transport, past()).await;
    let old = passing(&transport).await;
    println!("10 batches of {BATCH}: {new:?} when new, {old:?} after {} messages", past());
    assert!(old < new * 4 + Duration::from_millis(100), "{old:?} after a long past, {new:?} when new");
    transport.close().await.unwrap();
    place.clear().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_with_a_past_is_as_fast_as_a_new_one_on_postgres() {
    stays_fast(Place::postgres().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_with_a_past_is_as_fast_as_a_new_one_on_mysql() {
    stays_fast(Place::mysql().await).await;
}

/// With many messages waiting, what the server did: reading the whole table would show.
#[tokio::test]
async fn nothing_in_daily_work_reads_the_whole_table_on_postgres() {
    let place = Place::postgres().await;
    // Making the indexes read the table too.
    open_with_queue(&place.url).await.close().await.unwrap();
    let (passes_before, _) = reads(&place).await;
    let transport = open_with_queue(&place.url).await;
    for start in (0..5_000).step_by(1_000) {
        send(&transport, start..start + 1_000).await.unwrap();
    }
    let mut receiver = receiver(&transport, PATIENCE).await;
    for _ in 0..3 {
        let taken = receiver.receive(50, PATIENCE).await.unwrap();
        ack_all(taken).await.into_iter().collect::<Result<Vec<_>, _>>().unwrap();
    }
    for delivery in receiver.receive(3, PATIENCE).await.unwrap() {
        delivery.retry(Duration::from_secs(60)).await.unwrap();
    }
    drop(receiver);
    // Connections report what they did when they end.
    transport.close().await.unwrap();
    let (passes, searches) = reads(&place).await;
    let passes = passes - passes_before;
    assert!(passes == 0 && searches > 5, "{passes} passes over the table, {searches} searches by index");
    place.clear().await;
}

/// How often the table of messages was read as a whole, and by an index.
async fn reads(place: &Place) -> (i64, i64) {
    let mut connection = PgConnection::connect(place.url.split('?').next().unwrap()).await.unwrap();
    let sql = "SELECT seq_scan, idx_scan FROM pg_stat_user_tables
        WHERE schemaname = $1 AND relname = 'estafette_message'";
    let row = sqlx::query(sql).bind(&place.name).fetch_one(&mut connection).await.unwrap();
    (row.get(0), row.get(1))
}
