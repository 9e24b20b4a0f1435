//! The relay: moves rows from the table to a transport.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use estafette_core::{Error, ErrorKind, Result, Retry, Timestamp, Transport};
use tokio::task::JoinSet;

use crate::{Store, Wake, batch::Batch, row::Claimed};

/// The longest pause while the transport or the database is not there.
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// After so many batches in a row met no transport, rows go one by one: it may be one of them that breaks the connection.
const PROBE_AFTER: u32 = 3;
/// How often the lag is measured.
const MEASURE_EVERY: Duration = Duration::from_secs(5);

/// How much a relay takes at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pace {
    /// As much as is allowed.
    Batch,
    /// One row, after the transport was not there several times.
    Probe,
}

/// What a relay did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RelaySummary {
    /// Rows published and marked so.
    pub sent: u64,
    /// Refusals that will be tried again.
    pub retried: u64,
    /// Rows that were refused as often as allowed.
    pub failed: u64,
}

impl std::fmt::Display for RelaySummary {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { sent, retried, failed } = self;
        write!(formatter, "{sent} sent, {retried} retried, {failed} failed")
    }
}

/// Claims rows, publishes them with confirmation, and marks them sent. Any number may run on one table.
#[must_use = "a relay does nothing until it runs"]
pub struct Relay {
    store: Store,
    transport: Arc<dyn Transport>,
    batch_max: usize,
    lease: Duration,
    retry: Retry,
    poll: Duration,
    wake: Wake,
    require_queue: bool,
    when_ready: Option<Box<dyn FnOnce() + Send>>,
    summary: RelaySummary,
}

impl Relay {
    /// A relay from `store` to `transport`: 100 rows at a time, a lease of 30 seconds, 10 attempts from one second to five
    /// minutes apart, and a look every 100 ms (with PostgreSQL, which calls, every second).
    pub fn new(store: Store, transport: Arc<dyn Transport>) -> Self {
        let poll = match store.dialect() {
            crate::Dialect::Postgres => Duration::from_secs(1),
            crate::Dialect::MySql | crate::Dialect::Sqlite => Duration::from_millis(100),
        };
        Self {
            store,
            transport,
            batch_max: 100,
            lease: Duration::from_secs(30),
            retry: Retry::exponential(Duration::from_secs(1))
                .delay_max(Duration::from_secs(300))
                .attempts_max(10),
            poll,
            wake: Wake::default(),
            require_queue: false,
            when_ready: None,
            summary: RelaySummary::default(),
        }
    }

    /// Rows claimed and published together at most.
    pub fn batch(mut self, rows: usize) -> Self {
        self.batch_max = rows.clamp(1, 10_000);
        self
    }

    /// How long claimed rows are left alone by other relays: after a crash, how long they wait. At least one second; the
    /// transport has half of it to confirm.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = lease.max(Duration::from_secs(1));
        self
    }

    /// How often a row that the transport refuses is tried, and how long apart. While the transport cannot be reached no
    /// attempt is spent.
    pub fn retry(mut self, retry: Retry) -> Self {
        self.retry = retry;
        self
    }

    /// How often to look for rows nobody told of.
    pub fn poll(mut self, every: Duration) -> Self {
        self.poll = every.max(Duration::from_millis(1));
        self
    }

    /// Looks at once when this is rung: [`Outbox::wake`](crate::Outbox::wake) of the same process.
    pub fn wake(mut self, wake: Wake) -> Self {
        self.wake = wake;
        self
    }

    /// Refuses events that no queue is subscribed to. Without it they count as sent, and as
    /// `estafette_outbox_unrouted_total`.
    pub fn require_queue(mut self) -> Self {
        self.require_queue = true;
        self
    }

    /// Calls `ready` when the table has been read for the first time.
    pub fn when_ready(mut self, ready: impl FnOnce() + Send + 'static) -> Self {
        self.when_ready = Some(Box::new(ready));
        self
    }

    /// Runs until `stop` ends; a batch that was begun is finished first. Waits out what can be waited out: a transport or
    /// database that is not there.
    ///
    /// # Errors
    ///
    /// Those of the database that trying again does not cure, such as a missing table; [`ErrorKind::Closed`] when the
    /// transport was closed.
    pub async fn run_until(mut self, stop: impl Future<Output = ()>) -> Result<RelaySummary> {
        tokio::pin!(stop);
        let mut calls = JoinSet::new();
        listen(&mut calls, &self.store, &self.wake);
        let (mut failures, mut measured) = (0, None);
        loop {
            self.measure(&mut measured).await;
            let pace = if failures >= PROBE_AFTER { Pace::Probe } else { Pace::Batch };
            let pause = match self.step(pace).await {
                Ok(moved) => {
                    failures = 0;
                    if let Some(ready) = self.when_ready.take() {
                        ready();
                    }
                    if moved > 0 { Duration::ZERO } else { self.poll }
                }
                Err(error) if error.is_retryable() || error.kind() == ErrorKind::Denied => {
                    failures += 1;
                    tracing::warn!(
                        error = error.report(),
                        failures,
                        "the relay is interrupted; trying again"
                    );
                    let policy = Retry::exponential(Duration::from_millis(100)).delay_max(PAUSE_MAX);
                    policy.delay(failures, fastrand::f64())
                }
                Err(error) => return Err(error),
            };
            let is_well = failures == 0;
            tokio::select! {
                biased;
                () = &mut stop => return Ok(self.summary),
                () = self.wake.heard(), if is_well => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Publishes what is due until nothing is left that could be, and returns what it did.
    ///
    /// # Errors
    ///
    /// As [`run_until`](Self::run_until), and those of a transport or database that is not there.
    pub async fn run_until_empty(mut self) -> Result<RelaySummary> {
        while self.step(Pace::Batch).await? > 0 {}
        Ok(self.summary)
    }

    /// Claims, publishes and marks one batch. Returns how many rows it moved on; the error when the transport is not there.
    async fn step(&mut self, pace: Pace) -> Result<usize> {
        let claimed_at = Instant::now();
        let max = if pace == Pace::Probe { 1 } else { self.batch_max };
        let claim = self.store.claim(max, self.lease).await?;
        if claim.rows.is_empty() {
            return Ok(0);
        }
        let mut batch = Batch::new(claim);
        for wave in std::mem::take(&mut batch.waves) {
            // Before the lease ends another relay must not publish what this one still may.
            if claimed_at.elapsed() >= self.lease / 2 {
                wave.iter().for_each(|row| batch.give_back(row));
                continue;
            }
            let (rows, messages) = batch.outgoing(wave, self.require_queue);
            if !messages.is_empty() {
                self.publish(&mut batch, &rows, &messages, claimed_at).await;
            }
        }
        self.conclude(batch, pace).await
    }

    // Exclusive borrows, because what is called when ready may not be shared between threads.
    async fn publish(
        &mut self,
        batch: &mut Batch,
        rows: &[Claimed],
        messages: &[estafette_core::Outgoing],
        claimed_at: Instant,
    ) {
        let left = (self.lease / 2).saturating_sub(claimed_at.elapsed());
        let Ok(receipts) = tokio::time::timeout(left, self.transport.publish(messages)).await else {
            let error =
                Error::new(ErrorKind::TimedOut, "the transport did not confirm within half the lease");
            rows.iter().for_each(|row| batch.settle(row, Err(error.clone())));
            return;
        };
        let mut receipts = receipts.into_iter();
        for row in rows {
            let receipt = receipts.next().unwrap_or_else(|| Err(ErrorKind::Engine.into()));
            if receipt.as_ref().is_ok_and(|receipt| !receipt.routing.is_routed()) {
                metrics::counter!("estafette_outbox_unrouted_total").increment(1);
                tracing::debug!(row = row.seq, "no queue takes this event");
            }
            batch.settle(row, receipt.map(drop));
        }
    }

    /// Writes down what became of the batch.
    async fn conclude(&mut self, mut batch: Batch, pace: Pace) -> Result<usize> {
        batch.sent.sort_unstable();
        let marked = self.store.mark_sent(batch.token, &batch.sent).await?;
        if marked < batch.sent.len() as u64 {
            tracing::warn!(
                sent = batch.sent.len(),
                marked,
                "a lease ended early; some events are published twice"
            );
        }
        self.summary.sent += marked;
        metrics::counter!("estafette_outbox_sent_total").increment(marked);
        let now = Timestamp::now();
        let delay = metrics::histogram!("estafette_outbox_delay_seconds");
        batch.written.iter().for_each(|written| delay.record(now.since(*written).as_secs_f64()));
        let moved = batch.sent.len() + batch.refused.len();
        for (row, attempts, error) in batch.refused {
            self.refuse(batch.token, row, attempts, &error).await?;
        }
        batch.back.sort_unstable();
        self.store.release(batch.token, &batch.back).await?;
        batch.interrupted.sort_unstable();
        let Some(down) = batch.down else { return Ok(moved) };
        match *batch.interrupted {
            // Perhaps it is this row that breaks the connection: others go first next time.
            [row] if pace == Pace::Probe => {
                let delay = self.retry.delay(1, fastrand::f64());
                self.store.fail(batch.token, row, &down.report(), Some(delay)).await?;
            }
            _ => {
                self.store.interrupt(batch.token, &batch.interrupted, &down.report()).await?;
            }
        }
        Err(down)
    }

    async fn refuse(&mut self, token: i64, row: i64, attempts: i64, error: &Error) -> Result<()> {
        let attempt = u32::try_from(attempts + 1).unwrap_or(u32::MAX);
        let delay = (!self.retry.is_last(attempt)).then(|| self.retry.delay(attempt, fastrand::f64()));
        tracing::warn!(row, attempt, error = error.report(), "the transport refused an event");
        self.store.fail(token, row, &error.report(), delay).await?;
        let (count, counter) = match delay {
            Some(_) => (&mut self.summary.retried, "estafette_outbox_retried_total"),
            None => (&mut self.summary.failed, "estafette_outbox_failed_total"),
        };
        *count += 1;
        metrics::counter!(counter).increment(1);
        Ok(())
    }

    async fn measure(&mut self, measured: &mut Option<Instant>) {
        if measured.is_some_and(|at| at.elapsed() < MEASURE_EVERY) {
            return;
        }
        *measured = Some(Instant::now());
        match self.store.lag().await {
            Ok(lag) => metrics::gauge!("estafette_outbox_lag_seconds").set(lag.as_secs_f64()),
            // Claiming meets the same error and says so.
            Err(error) => tracing::debug!(error = error.report(), "the lag is unknown"),
        }
    }
}

/// Rings `wake` whenever the database says that something was committed.
#[allow(irrefutable_let_patterns, reason = "built for one database there is one pattern")]
#[cfg_attr(not(feature = "sqlx-postgres"), allow(unused_variables, reason = "the others say nothing"))]
fn listen(calls: &mut JoinSet<()>, store: &Store, wake: &Wake) {
    #[cfg(feature = "sqlx-postgres")]
    if let crate::database::Database::Postgres(pool) = store.database() {
        let (pool, wake) = (pool.clone(), wake.clone());
        calls.spawn(async move {
            loop {
                if let Err(error) = hear(&pool, &wake).await {
                    tracing::debug!(%error, "not listening; looking now and then until that works");
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        });
    }
}

#[cfg(feature = "sqlx-postgres")]
async fn hear(pool: &sqlx::PgPool, wake: &Wake) -> sqlx::Result<()> {
    // A connection beside the pool, whose own are not kept for good: relays that share a store would use them up.
    let options = (*pool.connect_options()).clone();
    let own = sqlx::postgres::PgPoolOptions::new().max_connections(1).connect_lazy_with(options);
    let mut listener = sqlx::postgres::PgListener::connect_with(&own).await?;
    listener.listen("estafette_outbox").await?;
    loop {
        // At first for what was committed before anybody listened.
        wake.notify();
        listener.recv().await?;
    }
}
