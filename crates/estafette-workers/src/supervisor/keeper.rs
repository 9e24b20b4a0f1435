//! The life of one process: started, watched, started again, replaced, stopped.

use std::{process::ExitStatus, sync::Arc, time::Duration};

use estafette_core::{Error, ErrorKind, Result};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::Instant,
};

use super::{
    Shared,
    child::Running,
    history::{History, Next},
};
use crate::{Address, Presence, error::describe};

/// A program that says nothing counts as up when it has been running this long.
const SILENT_UP_AFTER: Duration = Duration::from_secs(1);

/// How often it is looked whether a process has come up, or has gone silent.
const LOOK_PAUSE: Duration = Duration::from_millis(10);

/// Whoever wants to know that a replacement is up.
type Replaced = oneshot::Sender<Result<()>>;

/// The handle of a process that is kept.
#[derive(Clone)]
pub(super) struct Keeper {
    address: Address,
    stop: watch::Sender<bool>,
    replace: mpsc::Sender<Replaced>,
}

/// What a keeper is told.
pub(super) struct Orders {
    stop: watch::Receiver<bool>,
    replace: mpsc::Receiver<Replaced>,
}

impl Keeper {
    pub(super) fn new(address: Address) -> (Self, Orders) {
        let (stop, stop_order) = watch::channel(false);
        let (replace, replace_order) = mpsc::channel(1);
        (Self { address, stop, replace }, Orders { stop: stop_order, replace: replace_order })
    }

    /// Stops the process for good; its keeper's task ends when it has ended.
    pub(super) fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Replaces the process; returns when the new one is up.
    pub(super) async fn replace(&self) -> Result<()> {
        let (done, replaced) = oneshot::channel();
        let stopped = || Error::new(ErrorKind::Closed, format!("{} was stopped", describe(&self.address)));
        if self.replace.send(done).await.is_err() {
            return Err(stopped());
        }
        replaced.await.unwrap_or_else(|_dropped| Err(stopped()))
    }
}

/// Waits for the order to stop.
async fn told_to(stop: &mut watch::Receiver<bool>) {
    // A keeper whose handle is gone is to stop too.
    drop(stop.wait_for(|stop| *stop).await);
}

/// How the time with one start of a process ended.
enum Ending {
    Died(ExitStatus),
    Silent,
    Replace(Replaced),
    Stop,
}

/// Keeps the process at `address` running until it is stopped.
///
/// # Errors
///
/// [`ErrorKind::Engine`] when it died too often, with what it printed last.
pub(super) async fn keep(
    shared: Arc<Shared>,
    address: Address,
    is_command: bool,
    mut orders: Orders,
) -> Result<()> {
    let outcome =
        Life { shared: &shared, address: &address, is_command, replaced: None }.run(&mut orders).await;
    shared.board.remove(&address);
    outcome
}

struct Life<'a> {
    shared: &'a Arc<Shared>,
    address: &'a Address,
    is_command: bool,
    /// Who waits for the process that is being started.
    replaced: Option<Replaced>,
}

impl Life<'_> {
    async fn run(mut self, orders: &mut Orders) -> Result<()> {
        let mut history = History::new(self.shared.plan.restart.clone());
        loop {
            let mut running = Running::start(self.shared, self.address)?;
            let ending = self.watch(&mut running, orders).await?;
            let lived = running.age();
            let (status, how) = match ending {
                Ending::Stop => {
                    running.stop().await?;
                    return Ok(());
                }
                Ending::Replace(done) => {
                    self.shared.board.ended(self.address, Presence::Starting);
                    running.stop().await?;
                    self.replaced = Some(done);
                    continue;
                }
                Ending::Silent => {
                    running.kill();
                    (running.ended().await?, "gave no sign of life and was killed")
                }
                Ending::Died(status) => (status, "ended"),
            };
            tracing::warn!(process = %self.address, %status, ?lived, "a process {how}");
            match history.ended(Instant::now(), lived, status.success()) {
                Next::GiveUp { deaths } => return Err(self.gave_up(deaths, status, &running.last_lines())),
                Next::StartAfter(delay) => {
                    if self.pause(delay, orders).await {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Waits before the next start; whether it was told to stop meanwhile.
    async fn pause(&mut self, delay: Duration, orders: &mut Orders) -> bool {
        let presence = if delay.is_zero() { Presence::Starting } else { Presence::Down };
        self.shared.board.ended(self.address, presence);
        tokio::select! {
            () = told_to(&mut orders.stop) => return true,
            Some(done) = orders.replace.recv() => self.replaced = Some(done),
            () = tokio::time::sleep(delay) => {}
        }
        self.shared.board.ended(self.address, Presence::Starting);
        false
    }

    /// Watches a process that runs until something is to be done about it.
    async fn watch(&mut self, running: &mut Running, orders: &mut Orders) -> Result<Ending> {
        let came_up = self.come_up();
        tokio::select! {
            () = told_to(&mut orders.stop) => return Ok(Ending::Stop),
            ended = running.ended() => return Ok(Ending::Died(ended?)),
            () = came_up => {}
        }
        if let Some(replaced) = self.replaced.take() {
            // Who asked may have gone.
            drop(replaced.send(Ok(())));
        }
        let silent = self.silent();
        Ok(tokio::select! {
            () = told_to(&mut orders.stop) => Ending::Stop,
            ended = running.ended() => Ending::Died(ended?),
            Some(done) = orders.replace.recv() => Ending::Replace(done),
            () = silent => Ending::Silent,
        })
    }

    /// Waits until the process says it listens; a program that says nothing counts as up after a while.
    async fn come_up(&self) {
        let started = Instant::now();
        let mut members = self.shared.endpoint.members.subscribe();
        while !self.shared.board.is_up(self.address) {
            if self.is_command && started.elapsed() >= SILENT_UP_AFTER {
                self.shared.board.runs(self.address);
                return;
            }
            // Whether the members changed or the time has come: it is looked again.
            drop(tokio::time::timeout(LOOK_PAUSE, members.changed()).await);
        }
    }

    /// Waits until the process has been silent for too long.
    async fn silent(&self) {
        let Some(limit) = self.shared.plan.heartbeat else { return std::future::pending().await };
        loop {
            let silent_for = self.shared.board.silent_for(self.address).unwrap_or_default();
            let Some(left) = limit.checked_sub(silent_for) else { return };
            tokio::time::sleep(left.max(LOOK_PAUSE)).await;
        }
    }

    fn gave_up(&self, deaths: usize, status: ExitStatus, last_lines: &str) -> Error {
        let (who, window) = (describe(self.address), self.shared.plan.restart.window);
        let mut sentence = format!(
            "{who} died {deaths} times within {window:?}, the last time with {status}; not started again"
        );
        if !last_lines.is_empty() {
            sentence.push_str(". It printed last:\n");
            sentence.push_str(last_lines);
        }
        Error::new(ErrorKind::Engine, sentence)
    }
}
