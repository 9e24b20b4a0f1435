//! The supervisor: starts the processes of a group, watches them, and does what it is told from outside.
//!
//! Reading order: this file (from start to stop), `keeper` (the life of one process), `child` (one start of it), `board` (what
//! is known about all), `control` (what others may ask), `output` and `guardian`.
//!
//! Everything runs on one thread, the one that called: the death signal of the workers is tied to that very thread.

mod board;
mod child;
mod control;
mod guardian;
mod history;
mod keeper;
mod output;

use std::{collections::BTreeMap, path::Path, sync::Arc};

use estafette_core::{Error, ErrorKind, Result};
use sd_notify::NotifyState;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
    task::JoinSet,
};

use crate::{
    Address, Presence, Worker,
    builder::{Introduction, Plan},
    directory::Directory,
    endpoint::{Endpoint, Identity},
    error::system,
    inbound,
    members::Members,
};
use board::Board;
use control::{DEMANDS_MAX, Demand};
use guardian::Guardian;
use keeper::{Keeper, keep};
use output::Console;

/// Which processes a group has besides how many workers, and which of them are other programs.
#[derive(Debug)]
pub(crate) struct Roster {
    pub(crate) workers_are_commands: bool,
    pub(crate) processes: BTreeMap<String, bool>,
}

/// What all parts of the supervisor share.
pub(crate) struct Shared {
    pub(crate) plan: Plan,
    pub(crate) endpoint: Arc<Endpoint>,
    pub(crate) board: Board,
    pub(crate) console: Console,
    pub(crate) guardian: Guardian,
    /// This program's file, found before it may be replaced: a reload starts the new one.
    pub(crate) program: std::path::PathBuf,
}

/// Runs a group until it is stopped.
///
/// # Errors
///
/// When the group cannot be started, or a process died too often.
pub(crate) fn run(plan: Plan, roster: &Roster, root: &Path, introduce: Introduction) -> Result<()> {
    let directory = Directory::create(root, &plan.name)?;
    // Held until the group has ended.
    let lock = directory.lock()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| system("starting a runtime", error))?;
    let outcome = runtime.block_on(async {
        let program = std::env::current_exe().map_err(|error| system("finding this program", error))?;
        let guardian = Guardian::start(&program, &plan.arguments)?;
        let identity =
            Identity { address: Address::Supervisor, incarnation: 0, group: plan.name.clone(), directory };
        let endpoint = Endpoint::start(identity, plan.limits.clone(), Members::default());
        introduce(&Worker::of(Arc::clone(&endpoint)));
        let console = Console::start(plan.output)?;
        let board = Board::new(Arc::clone(&endpoint));
        let shared = Arc::new(Shared { plan, endpoint, board, console, guardian, program });
        Supervisor::new(Arc::clone(&shared), roster.workers_are_commands)?.run(roster).await
    });
    drop(lock);
    outcome
}

/// The supervisor at work.
struct Supervisor {
    shared: Arc<Shared>,
    workers_are_commands: bool,
    /// The keepers of the workers, by id.
    workers: Vec<Keeper>,
    processes: Vec<Keeper>,
    /// The tasks of all keepers; one that ends with an error ends the group.
    keeping: JoinSet<Result<()>>,
    demands: mpsc::Receiver<Demand>,
    /// A reload under way, at most one.
    reloading: JoinSet<()>,
}

/// Why the supervisor stops.
enum Ending {
    Asked,
    Failed(Error),
}

/// The signals a supervisor listens for.
struct Signals {
    hangup: Signal,
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn listen() -> Result<Self> {
        let listen = |kind| signal(kind).map_err(|error| system("listening for signals", error));
        Ok(Self {
            hangup: listen(SignalKind::hangup())?,
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
        })
    }
}

impl Supervisor {
    fn new(shared: Arc<Shared>, workers_are_commands: bool) -> Result<Self> {
        let (sender, demands) = mpsc::channel(DEMANDS_MAX);
        control::listen(&shared, &sender);
        inbound::listen(&shared.endpoint)?;
        Ok(Self {
            shared,
            workers_are_commands,
            workers: Vec::new(),
            processes: Vec::new(),
            keeping: JoinSet::new(),
            demands,
            reloading: JoinSet::new(),
        })
    }

    async fn run(mut self, roster: &Roster) -> Result<()> {
        let mut signals = Signals::listen()?;
        for (name, is_command) in &roster.processes {
            let keeper = self.start(Address::Process(name.as_str().into()), *is_command);
            self.processes.push(keeper);
        }
        self.scale(self.shared.plan.count);
        self.shared.endpoint.ready.send_replace(true);
        let shared = Arc::clone(&self.shared);
        self.shared.endpoint.spawn(async move { tell_when_up(&shared).await });
        let ending = self.supervise(&mut signals).await;
        notify(&[NotifyState::Stopping]);
        self.stop(&mut signals).await;
        inbound::leave(&self.shared.endpoint).await;
        self.shared.endpoint.close().await;
        self.shared.console.close().await;
        match ending {
            Ending::Asked => Ok(()),
            Ending::Failed(error) => Err(error),
        }
    }

    /// Starts keeping a process.
    fn start(&mut self, address: Address, is_command: bool) -> Keeper {
        let (keeper, orders) = Keeper::new(address.clone());
        self.shared.board.add(&address);
        self.keeping.spawn(keep(Arc::clone(&self.shared), address, is_command, orders));
        keeper
    }

    /// Starts workers, or stops those of the highest ids.
    fn scale(&mut self, count: u32) {
        let wanted = usize::try_from(count).unwrap_or(usize::MAX);
        while self.workers.len() < wanted {
            let id = u32::try_from(self.workers.len()).unwrap_or(u32::MAX);
            let keeper = self.start(Address::Worker(id), self.workers_are_commands);
            self.workers.push(keeper);
        }
        while self.workers.len() > wanted {
            if let Some(keeper) = self.workers.pop() {
                keeper.stop();
            }
        }
        self.shared.board.set_count(count);
    }

    /// Does what signals and others ask until it is to stop, or a process has died too often.
    async fn supervise(&mut self, signals: &mut Signals) -> Ending {
        loop {
            tokio::select! {
                _ = signals.terminate.recv() => return Ending::Asked,
                _ = signals.interrupt.recv() => return Ending::Asked,
                _ = signals.hangup.recv() => self.reload(None),
                Some(demand) = self.demands.recv() => match demand {
                    Demand::Stop => return Ending::Asked,
                    Demand::Scale(count) => self.scale(count),
                    Demand::Reload(done) => self.reload(Some(done)),
                },
                Some(ended) = self.keeping.join_next() => match ended {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => return Ending::Failed(error),
                    Err(error) => return Ending::Failed(Error::new(ErrorKind::Engine, error)),
                },
                Some(_ended) = self.reloading.join_next() => notify(&[NotifyState::Ready]),
            }
        }
    }

    /// Replaces all processes one by one, unless that is under way already.
    fn reload(&mut self, done: Option<control::Done>) {
        if !self.reloading.is_empty() {
            tracing::warn!("the group is being reloaded already");
            if let Some(done) = done {
                let error = Error::new(ErrorKind::Conflict, "the group is being reloaded already");
                // Who asked may have gone.
                drop(done.send(Err(error)));
            }
            return;
        }
        tracing::info!("reloading, one by one");
        if let Ok(now) = NotifyState::monotonic_usec_now() {
            notify(&[NotifyState::Reloading, now]);
        }
        let keepers: Vec<Keeper> = self.workers.iter().chain(&self.processes).cloned().collect();
        self.reloading.spawn(async move {
            let mut outcome = Ok(());
            for keeper in keepers {
                if let Err(error) = keeper.replace().await {
                    tracing::error!(error = %error.report(), "the reload stops here");
                    outcome = Err(error);
                    break;
                }
            }
            if let Some(done) = done {
                // Who asked may have gone.
                drop(done.send(outcome));
            }
        });
    }

    /// Stops all processes at once, gracefully; a second signal kills what is left.
    async fn stop(&mut self, signals: &mut Signals) {
        self.reloading.abort_all();
        for keeper in self.workers.iter().chain(&self.processes) {
            keeper.stop();
        }
        let all_ended = async {
            while let Some(ended) = self.keeping.join_next().await {
                if let Ok(Err(error)) = ended {
                    tracing::warn!(error = %error.report(), "a process did not stop well");
                }
            }
        };
        tokio::select! {
            () = all_ended => return,
            _ = signals.terminate.recv() => {}
            _ = signals.interrupt.recv() => {}
        }
        tracing::warn!("told to stop again: killing what is left");
        self.shared.board.kill_all();
        while self.keeping.join_next().await.is_some() {}
    }
}

/// Tells the service manager when every process is up for the first time.
async fn tell_when_up(shared: &Shared) {
    let mut members = shared.endpoint.members.subscribe();
    let all_up = |members: &Members| {
        members.workers.iter().chain(members.processes.values()).all(|presence| *presence == Presence::Up)
    };
    if members.wait_for(|members| members.version > 0 && all_up(members)).await.is_ok() {
        tracing::info!(group = shared.plan.name, "all processes are up");
        notify(&[NotifyState::Ready]);
    }
}

/// Tells the service manager, when there is one.
fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the service manager was not told");
    }
}
