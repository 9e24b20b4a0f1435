//! The run of the demo: everything is started, watched, and stopped.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use estafette::{Bus, DeadLetter, DeadQuery, QueueName, QueueStatus};
use tokio::{
    sync::mpsc,
    time::{Interval, MissedTickBehavior},
};

use super::{
    board::Board,
    crew::{Crew, Member},
    messages::{self, QUEUES},
    summary::Outcome,
    tally::{Heard, Tally},
};

/// How often the store is looked at.
const LOOK: Duration = Duration::from_millis(200);

/// How long the workers may take, after the last message was published.
const PATIENCE: Duration = Duration::from_secs(60);

/// Lines of the processes that wait to be read.
const HEARD_MAX: usize = 1000;

/// A demo that runs.
pub(super) struct Show {
    bus: Bus,
    board: Board,
    crew: Crew,
    heard: mpsc::Receiver<Heard>,
    tally: Tally,
    messages: u64,
    publisher: Member,
    workers: [Member; 2],
    was_killed: bool,
    started: Instant,
}

impl Show {
    /// Declares the queues and starts the processes.
    pub(super) async fn begin(directory: &Path, messages: u32, board: Board) -> anyhow::Result<Self> {
        let url = format!("file:{}", super::mail(directory).display());
        let bus = Bus::connect(&url).await.with_context(|| format!("cannot connect to {url}"))?;
        for spec in messages::specs()? {
            bus.declare(&spec).await.with_context(|| format!("cannot declare {}", spec.name))?;
        }
        let (sender, heard) = mpsc::channel(HEARD_MAX);
        let crew = Crew::new(directory, &url, sender)?;
        let workers = [crew.start("worker-1", &["demo-worker"])?, crew.start("worker-2", &["demo-worker"])?];
        let count = messages.to_string();
        let publisher = crew.start("publisher", &["demo-publisher", "--messages", &count])?;
        Ok(Self {
            bus,
            board,
            crew,
            heard,
            tally: Tally::default(),
            messages: messages.into(),
            publisher,
            workers,
            was_killed: false,
            started: Instant::now(),
        })
    }

    /// Runs to the end and says what came of it.
    pub(super) async fn run(mut self) -> anyhow::Result<Outcome> {
        let watched = tokio::select! {
            watched = self.watch() => watched,
            _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted; the messages are kept")),
        };
        let statuses = match watched {
            Ok(statuses) => statuses,
            Err(error) => {
                self.board.finish();
                return Err(error);
            }
        };
        let took = self.started.elapsed();
        for worker in self.workers {
            worker.stop().await?;
        }
        while let Ok(heard) = self.heard.try_recv() {
            self.tally.add(heard);
        }
        self.board.update(&self.tally, &statuses);
        self.board.finish();
        let mut dead = Vec::new();
        for (name, _) in QUEUES {
            dead.extend(dead_letters(&self.bus, name).await?);
        }
        self.bus.close().await?;
        Ok(Outcome { tally: self.tally, dead, was_killed: self.was_killed, took })
    }

    /// Watches until everything is published and no queue holds work any more.
    async fn watch(&mut self) -> anyhow::Result<Vec<QueueStatus>> {
        let mut looks = looks();
        let mut deadline = None;
        loop {
            tokio::select! {
                heard = self.heard.recv() => {
                    if let Some(heard) = heard {
                        self.tally.add(heard);
                        self.kill_a_worker_half_way().await?;
                    }
                }
                _ = looks.tick() => {
                    let statuses = self.bus.admin().queues().await.context("cannot look at the queues")?;
                    self.board.update(&self.tally, &statuses);
                    if deadline.is_some() && statuses.iter().all(|queue| queue.is_idle() && queue.delayed == 0) {
                        return Ok(statuses);
                    }
                    if deadline.is_some_and(|deadline: Instant| Instant::now() > deadline) {
                        bail!("the workers were not done {PATIENCE:?} after the last message was published");
                    }
                }
                ended = self.publisher.ended(), if deadline.is_none() => {
                    ended?;
                    deadline = Some(Instant::now() + PATIENCE);
                }
                Some(failed) = worker_ended(&mut self.workers) => {
                    failed?;
                    bail!("a worker ended by itself");
                }
            }
        }
    }

    /// Kills the second worker when half of the messages are published, and starts it again.
    async fn kill_a_worker_half_way(&mut self) -> anyhow::Result<()> {
        if self.was_killed || self.tally.published * 2 < self.messages {
            return Ok(());
        }
        self.was_killed = true;
        let next = self.crew.start("worker-2", &["demo-worker"])?;
        let [_, second] = &mut self.workers;
        let victim = std::mem::replace(second, next);
        self.board
            .say(&format!("worker 2 (process {}) was killed with SIGKILL, and started again", id(&victim)));
        // What it said last is heard by the loop: it must not wait here, or the channel could fill up.
        tokio::spawn(async move {
            if let Err(error) = victim.kill().await {
                tracing::warn!("{error:#}");
            }
        });
        Ok(())
    }
}

fn id(member: &Member) -> String {
    member.id().map_or_else(|| "?".into(), |id| id.to_string())
}

fn looks() -> Interval {
    let mut looks = tokio::time::interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    looks
}

/// How a worker ended, which none does before it is asked to.
async fn worker_ended([first, second]: &mut [Member; 2]) -> Option<anyhow::Result<()>> {
    tokio::select! {
        ended = first.ended() => Some(ended),
        ended = second.ended() => Some(ended),
    }
}

async fn dead_letters(bus: &Bus, name: &str) -> anyhow::Result<Vec<DeadLetter>> {
    let queue = QueueName::try_from(name)?;
    bus.admin()
        .dead(&queue, &DeadQuery::all())
        .await
        .with_context(|| format!("cannot read the dead letters of {name}"))
}
