//! The outbox, from PostgreSQL to RabbitMQ.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use estafette::outbox::{Outbox, Relay, Store};
use estafette::{Bus, Context, Envelope, QueueSpec};
use sqlx::{Connection as _, PgConnection};

use super::Size;
use crate::case::{Case, Loop, Rate, Target};
use crate::floor::outbox as floor;

/// The queue that takes everything.
const QUEUE: &str = "bench.outbox";

/// Rows claimed together.
const BATCH: u16 = 100;

/// An insert may cost this much more.
const INSERT_COST_MAX: f64 = 1.15;

/// The jobs of the outbox.
#[must_use]
pub fn cases(size: Size) -> Vec<Case> {
    let rows = size.of(30_000);
    let by_hand = Loop::asynchronous(move |_| async move {
        let bus = bus().await?;
        let rate = floor::relay(&**bus.transport(), rows, i64::from(BATCH)).await?;
        done(&bus).await?;
        Ok(rate)
    });
    let ours = Loop::asynchronous(move |_| relay(rows));
    let relay = Case::new("outbox: relay in 100s to RabbitMQ (floor: by hand)", by_hand);
    let orders = size.of(3_000);
    let plain = Loop::asynchronous(move |_| floor::insert(orders));
    let written = Loop::asynchronous(move |_| insert(orders));
    let insert = Case::new("outbox: order and event in a transaction (floor: a plain row)", plain);
    let pings = size.of(500);
    let commit = Loop::asynchronous(move |_| floor::insert(pings));
    let median = Loop::asynchronous(move |_| latency(pings, 0.5));
    let p50 = Case::new("outbox: commit to handler, p50 (floor: a transaction)", commit);
    let commit = Loop::asynchronous(move |_| floor::insert(pings));
    let tail = Loop::asynchronous(move |_| latency(pings, 0.99));
    let p99 = Case::new("outbox: commit to handler, p99 (floor: a transaction)", commit);
    vec![
        relay.ours(ours, Target::RatioMin(0.8)),
        insert.ours(written, Target::RatioMin(1.0 / INSERT_COST_MAX)),
        p50.ours(median, Target::Shown),
        p99.ours(tail, Target::Shown),
    ]
}

async fn bus() -> anyhow::Result<Bus> {
    let url = std::env::var("ESTAFETTE_TEST_AMQP_URL").context(
        "this benchmark needs RabbitMQ: run `scripts/services up`, then `eval \"$(scripts/services env)\"`",
    )?;
    let bus = Bus::connect(&url).await?;
    bus.declare(&QueueSpec::durable(QUEUE.try_into()?).subscribe("bench.message".try_into()?)).await?;
    Ok(bus)
}

async fn done(bus: &Bus) -> anyhow::Result<()> {
    bus.admin().delete(&QUEUE.try_into()?).await?;
    Ok(bus.close().await?)
}

async fn relay(rows: u32) -> anyhow::Result<Rate> {
    let bus = bus().await?;
    let url = floor::database().await?;
    floor::fill(&url, rows).await?;
    let store = Store::open(&url)?;
    // Connects, as the floor has before its clock starts.
    store.lag().await?;
    let started = Instant::now();
    let relay = Relay::new(store.clone(), bus.transport().clone()).batch(BATCH.into());
    let summary = relay.run_until_empty().await?;
    let rate = Rate::of(rows, started.elapsed());
    ensure!(summary.sent == u64::from(rows), "{summary}");
    store.close().await;
    done(&bus).await?;
    Ok(rate)
}

fn event() -> anyhow::Result<Envelope> {
    Ok(Envelope::new("bench.message".parse()?, vec![b'x'; 256].into()))
}

async fn order(connection: &mut PgConnection, outbox: &Outbox, number: i64) -> anyhow::Result<()> {
    let mut transaction = connection.begin().await?;
    sqlx::query("INSERT INTO orders (id) VALUES ($1)").bind(number).execute(&mut *transaction).await?;
    outbox.envelope(event()?).subject("order", number).publish(&mut transaction).await?;
    Ok(transaction.commit().await?)
}

async fn insert(orders: u32) -> anyhow::Result<Rate> {
    let mut connection = PgConnection::connect(&floor::database().await?).await?;
    let outbox = Outbox::new("bench");
    let started = Instant::now();
    for number in 0..i64::from(orders) {
        order(&mut connection, &outbox, number).await?;
    }
    let rate = Rate::of(orders, started.elapsed());
    connection.close().await?;
    Ok(rate)
}

/// One over the time from the end of a commit to the start of the handler, of which `part` are shorter.
async fn latency(orders: u32, part: f64) -> anyhow::Result<Rate> {
    let bus = bus().await?;
    let url = floor::database().await?;
    let mut connection = PgConnection::connect(&url).await?;
    let (handled, mut seen) = tokio::sync::mpsc::channel(16);
    let consumer = bus.consumer(QUEUE).handle_any(move |_: Context| {
        let handled = handled.clone();
        async move { handled.send(Instant::now()).await.map_err(|_closed| "the benchmark is over") }
    });
    let (stop, stopped) = tokio::sync::watch::channel(());
    let until = |mut stopped: tokio::sync::watch::Receiver<()>| async move {
        // An error says that it is over, too.
        drop(stopped.changed().await);
    };
    let consuming = tokio::spawn(consumer.run_until(until(stopped.clone())));
    let store = Store::open(&url)?;
    let relay = Relay::new(store.clone(), bus.transport().clone());
    let relaying = tokio::spawn(relay.run_until(until(stopped)));
    let outbox = Outbox::new("bench");
    let mut times = Vec::new();
    for number in 0..i64::from(orders) {
        tokio::time::sleep(Duration::from_millis(10)).await;
        order(&mut connection, &outbox, number).await?;
        let committed = Instant::now();
        let at = tokio::time::timeout(Duration::from_secs(10), seen.recv()).await?;
        times.push(at.context("the consumer ended")?.saturating_duration_since(committed));
    }
    stop.send(())?;
    consuming.await??;
    relaying.await??;
    store.close().await;
    connection.close().await?;
    done(&bus).await?;
    times.sort_unstable();
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a part of a small number")]
    let index = (times.len() as f64 * part) as usize;
    Ok(Rate::of(1, times.get(index.min(times.len() - 1)).copied().unwrap_or_default()))
}
