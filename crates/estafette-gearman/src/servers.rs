//! The servers: a connection to each for publishing, made when it is needed and made again when it broke.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use estafette_core::{Error, ErrorKind, Result};
use tokio::{sync::Mutex, time::Instant};

use crate::{
    config::{Endpoint, GearmanConfig},
    error,
    link::Link,
    protocol::{self, Packet, kind},
};

/// Between two attempts to reach any server: at first, and at most.
const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// A job to submit.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    pub(crate) function: String,
    /// A job of the same unique id and function that still waits or runs makes the server forget this one.
    pub(crate) unique: String,
    pub(crate) data: Bytes,
    pub(crate) when: When,
}

/// When a job's turn is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    /// After those that wait.
    InTurn,
    /// Before those that wait.
    First,
    /// Not before this second, counted from 1970.
    NotBefore(i64),
}

impl Job {
    fn put(&self, out: &mut Vec<u8>) {
        let (function, unique) = (self.function.as_bytes(), self.unique.as_bytes());
        match self.when {
            When::InTurn => protocol::put(out, kind::SUBMIT_JOB_BG, &[function, unique, &self.data]),
            When::First => protocol::put(out, kind::SUBMIT_JOB_HIGH_BG, &[function, unique, &self.data]),
            When::NotBefore(second) => {
                let second = second.to_string();
                protocol::put(
                    out,
                    kind::SUBMIT_JOB_EPOCH,
                    &[function, unique, second.as_bytes(), &self.data],
                );
            }
        }
    }
}

/// Text to wait for between two attempts.
pub(crate) struct Pause(Duration);

impl Pause {
    pub(crate) fn new() -> Self {
        Self(PAUSE_MIN)
    }

    pub(crate) fn next(&mut self) -> Duration {
        let pause = self.0;
        self.0 = (pause * 2).min(PAUSE_MAX);
        pause
    }
}

pub(crate) struct Servers {
    pub(crate) config: Arc<GearmanConfig>,
    links: Vec<Mutex<Option<Arc<Link>>>>,
    /// The one that answered last.
    preferred: AtomicUsize,
    closed: AtomicBool,
}

impl Servers {
    pub(crate) fn new(config: Arc<GearmanConfig>) -> Self {
        let links = config.endpoints.iter().map(|_| Mutex::default()).collect();
        Self { config, links, preferred: AtomicUsize::new(0), closed: AtomicBool::new(false) }
    }

    pub(crate) fn deadline(&self) -> Instant {
        Instant::now() + self.config.patience
    }

    pub(crate) fn check_open(&self) -> Result<()> {
        if self.closed.load(Ordering::Acquire) { Err(error::closed()) } else { Ok(()) }
    }

    pub(crate) async fn close(&self) {
        self.closed.store(true, Ordering::Release);
        for link in &self.links {
            link.lock().await.take();
        }
    }

    async fn link(&self, index: usize, endpoint: &Endpoint) -> Result<Arc<Link>> {
        self.check_open()?;
        let Some(slot) = self.links.get(index) else { return Err(error::closed()) };
        let mut slot = slot.lock().await;
        if let Some(link) = slot.as_ref().filter(|link| link.is_open()) {
            return Ok(Arc::clone(link));
        }
        let link = Arc::new(Link::open(endpoint, &self.config).await?);
        *slot = Some(Arc::clone(&link));
        Ok(link)
    }

    /// A connection to the first server that can be reached; waits for one until `deadline`.
    ///
    /// # Errors
    ///
    /// The last server's.
    pub(crate) async fn any(&self, deadline: Instant) -> Result<Arc<Link>> {
        let mut pause = Pause::new();
        loop {
            let first = self.preferred.load(Ordering::Relaxed);
            let mut last = error::closed();
            for offset in 0..self.config.endpoints.len() {
                let index = (first + offset) % self.config.endpoints.len();
                let Some(endpoint) = self.config.endpoints.get(index) else { continue };
                match self.link(index, endpoint).await {
                    Ok(link) => {
                        self.preferred.store(index, Ordering::Relaxed);
                        return Ok(link);
                    }
                    Err(error) if error.kind() == ErrorKind::Closed => return Err(error),
                    Err(error) => last = error,
                }
            }
            let pause = pause.next();
            if Instant::now() + pause >= deadline {
                return Err(last);
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// Submits jobs to the first server that takes them: one result for each, in order. `Ok` means the server has it.
    pub(crate) async fn submit(&self, jobs: &[Job]) -> Vec<Result<()>> {
        let deadline = self.deadline();
        let mut results = Vec::with_capacity(jobs.len());
        // Whether a server may have taken jobs whose confirmation was lost.
        let mut unsure = false;
        let mut pause = Pause::new();
        while results.len() < jobs.len() {
            let rest = jobs.get(results.len()..).unwrap_or_default();
            let error = match self.any(deadline).await {
                Ok(link) => match submit_through(&link, rest, deadline).await {
                    Ok(answers) => {
                        results.extend(answers);
                        continue;
                    }
                    Err(error) => {
                        unsure = true;
                        error
                    }
                },
                Err(error) => error,
            };
            let pause = pause.next();
            if error.kind() == ErrorKind::Closed || Instant::now() + pause >= deadline {
                let error = if unsure { error::unknown(self.config.patience) } else { error };
                results.resize_with(jobs.len(), || Err(error.clone()));
                break;
            }
            // Sent again: a server that has it already, waiting or running, takes it for the same.
            tracing::info!(error = error.report(), "submitting again");
            tokio::time::sleep(pause).await;
        }
        results
    }
}

/// Jobs that are written before their confirmations are read.
const WINDOW: usize = 1000;

async fn submit_through(link: &Link, jobs: &[Job], deadline: Instant) -> Result<Vec<Result<()>>> {
    let jobs = jobs.get(..jobs.len().min(WINDOW)).unwrap_or_default();
    let mut requests = Vec::with_capacity(jobs.iter().map(|job| job.data.len() + 128).sum());
    for job in jobs {
        job.put(&mut requests);
    }
    let answers = link.call(&requests, jobs.len(), deadline).await?;
    Ok(answers.iter().map(confirmed).collect())
}

fn confirmed(packet: &Packet) -> Result<()> {
    match packet.kind {
        kind::JOB_CREATED => Ok(()),
        _ => Err(refusal(packet)),
    }
}

/// The error in a packet that is not the one expected.
pub(crate) fn refusal(packet: &Packet) -> Error {
    if packet.kind != kind::ERROR {
        return error::refused(&format!("an unexpected packet of kind {}", packet.kind));
    }
    let text = String::from_utf8_lossy(&packet.data).replace('\0', ": ");
    error::refused(&text)
}
