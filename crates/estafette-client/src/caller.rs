//! Requests, written to any one node and answered in any order.
//!
//! One task holds the connection. A request that was not written when the connection broke goes over the next one; one
//! that was written may have been done, so that it fails and its sender decides.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use estafette_core::{Error, ErrorKind, Result};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{MissedTickBehavior, interval},
};

use crate::{
    builder::Settings,
    discovery::Node,
    socket::{Backoff, PING_EVERY, Socket},
    wire::{Frame, Outcome},
};

/// Requests without an answer on one connection. The gateway takes no more requests while as many answers wait as its
/// own queue holds, and this is far below.
const PENDING_MAX: usize = 512;

/// A request on its way.
pub(crate) struct Job {
    pub(crate) method: &'static str,
    pub(crate) params: serde_json::Value,
    pub(crate) is_written: Arc<AtomicBool>,
    pub(crate) answer: oneshot::Sender<Result<Outcome>>,
}

struct Caller {
    jobs: mpsc::Receiver<Job>,
    /// Taken from `jobs` and not written.
    first: Option<Job>,
    next_id: u64,
}

/// Answers `jobs` until there are no more senders of them.
pub(crate) async fn run(settings: Settings, nodes: watch::Receiver<Vec<Node>>, jobs: mpsc::Receiver<Job>) {
    let mut caller = Caller { jobs, first: None, next_id: 1 };
    let mut backoff = Backoff::new(settings.reconnect_after);
    loop {
        // A connection is only made when there is something to say.
        if caller.first.is_none() {
            caller.first = caller.jobs.recv().await;
        }
        let Some(first) = &caller.first else { return };
        if first.answer.is_closed() {
            caller.first = None;
            continue;
        }
        let ended = match connect(&settings, &nodes).await {
            Ok(socket) => {
                backoff.succeeded();
                caller.serve(socket).await
            }
            Err(error) => Err(error),
        };
        match ended {
            Ok(()) => return,
            Err(error) if error.kind() == ErrorKind::Denied => caller.refuse(&error),
            Err(error) => {
                tracing::debug!(error = error.report(), "no connection to a node");
                backoff.pause().await;
            }
        }
    }
}

/// Connects to the node that fate chooses, or else to the next.
async fn connect(settings: &Settings, nodes: &watch::Receiver<Vec<Node>>) -> Result<Socket> {
    let mut nodes = nodes.borrow().clone();
    fastrand::shuffle(&mut nodes);
    let mut failed = Error::new(ErrorKind::Unavailable, "the gateway has no nodes");
    for node in &nodes {
        match Socket::connect(settings, node).await {
            Ok(socket) => return Ok(socket),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

impl Caller {
    /// Until the connection breaks, or (without an error) nobody is left to ask.
    async fn serve(&mut self, mut socket: Socket) -> Result<()> {
        let mut pending = HashMap::new();
        let served = self.exchange(&mut socket, &mut pending).await;
        for (_, answer) in pending {
            let lost = "the connection broke before the answer: whether it was done is not known";
            // Whoever asked may have given up.
            drop(oneshot::Sender::send(answer, Err(Error::new(ErrorKind::TimedOut, lost))));
        }
        if served.is_ok() {
            socket.close().await;
        }
        served
    }

    async fn exchange(
        &mut self,
        socket: &mut Socket,
        pending: &mut HashMap<u64, oneshot::Sender<Result<Outcome>>>,
    ) -> Result<()> {
        let mut pings = interval(PING_EVERY);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            if let Some(job) = self.first.take() {
                self.write(job, socket, pending).await?;
            }
            tokio::select! {
                frame = socket.next() => answer(frame?, pending),
                job = self.jobs.recv(), if pending.len() < PENDING_MAX => match job {
                    Some(job) => self.first = Some(job),
                    None => return Ok(()),
                },
                _ = pings.tick() => socket.ping().await?,
            }
        }
    }

    /// Writes `job` and what else is waiting.
    async fn write(
        &mut self,
        job: Job,
        socket: &mut Socket,
        pending: &mut HashMap<u64, oneshot::Sender<Result<Outcome>>>,
    ) -> Result<()> {
        let mut texts = Vec::new();
        let mut next = Some(job);
        while let Some(job) = next {
            if !job.answer.is_closed() {
                let id = self.next_id;
                self.next_id += 1;
                match crate::wire::request(job.method, &job.params, id) {
                    Ok(text) => {
                        job.is_written.store(true, Ordering::Relaxed);
                        texts.push(text);
                        pending.insert(id, job.answer);
                    }
                    Err(error) => drop(job.answer.send(Err(error))),
                }
            }
            next = if pending.len() < PENDING_MAX { self.jobs.try_recv().ok() } else { None };
        }
        // Those who gave up are never answered otherwise, if the node does not.
        pending.retain(|_, answer| !answer.is_closed());
        socket.send(texts).await
    }

    /// Fails what waits: another connection would not be accepted either.
    fn refuse(&mut self, error: &Error) {
        let mut job = self.first.take();
        while let Some(refused) = job {
            drop(refused.answer.send(Err(error.clone())));
            job = self.jobs.try_recv().ok();
        }
    }
}

fn answer(frame: Frame, pending: &mut HashMap<u64, oneshot::Sender<Result<Outcome>>>) {
    if let Some(answer) = frame.i.and_then(|id| pending.remove(&id)) {
        drop(answer.send(frame.outcome()));
    }
}
