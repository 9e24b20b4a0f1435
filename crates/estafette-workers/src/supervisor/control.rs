//! What members and outsiders may ask the supervisor.

use std::{sync::Arc, time::Duration};

use estafette_core::{Error, ErrorKind, Result};
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

use super::{Shared, board::memory_bytes};
use crate::{
    Address, Context, Counts, GroupStatus, To, Worker, builder::check_count, members::actions,
    status::MemberStatus,
};

/// How many demands wait at once.
pub(super) const DEMANDS_MAX: usize = 16;

/// How long a worker may take to tell what it has counted.
const COUNTS_WAIT_MAX: Duration = Duration::from_millis(500);

/// Tells that something is done.
pub(super) type Done = oneshot::Sender<Result<()>>;

/// What the supervisor is to do.
pub(super) enum Demand {
    Stop,
    Scale(u32),
    Reload(Done),
}

/// Adds the supervisor's listeners.
pub(super) fn listen(shared: &Arc<Shared>, demands: &mpsc::Sender<Demand>) {
    let supervisor = Worker::of(Arc::clone(&shared.endpoint));
    let started = Instant::now();

    supervisor.on(actions::LIST, |(): (), context: Context| async move {
        Ok::<_, Error>(context.worker().endpoint().members.borrow().clone())
    });

    let board = Arc::downgrade(shared);
    supervisor.on(actions::JOIN, move |incarnation: u64, context: Context| {
        let known = board.upgrade().is_some_and(|shared| shared.board.joined(context.from(), incarnation));
        async move {
            if known {
                return Ok(context.worker().endpoint().members.borrow().clone());
            }
            let sentence = format!("{} was replaced meanwhile", context.from());
            Err(Error::new(ErrorKind::Conflict, sentence))
        }
    });

    let board = Arc::downgrade(shared);
    supervisor.on(actions::HEARTBEAT, move |incarnation: u64, context: Context| {
        if let Some(shared) = board.upgrade() {
            shared.board.beat(context.from(), incarnation);
        }
        std::future::ready(())
    });

    let board = Arc::downgrade(shared);
    supervisor.on(actions::STATUS, move |(): (), context: Context| {
        let shared = board.upgrade();
        async move {
            let Some(shared) = shared else { return Err(stopped()) };
            let members = with_counts(context.worker(), shared.board.status()).await;
            let pid = std::process::id();
            Ok(GroupStatus {
                group: shared.plan.name.clone(),
                pid,
                uptime_seconds: started.elapsed().as_secs(),
                memory_bytes: memory_bytes(pid),
                members,
            })
        }
    });

    let sender = demands.clone();
    supervisor.on(actions::STOP, move |(): (), _context: Context| demand(sender.clone(), Demand::Stop));
    let sender = demands.clone();
    supervisor.on(actions::SCALE, move |count: u32, _context: Context| {
        let sender = sender.clone();
        async move {
            check_count(count)?;
            demand(sender, Demand::Scale(count)).await
        }
    });
    let sender = demands.clone();
    supervisor.on(actions::RELOAD, move |(): (), _context: Context| {
        let sender = sender.clone();
        async move {
            let (done, reloaded) = oneshot::channel();
            demand(sender, Demand::Reload(done)).await?;
            reloaded.await.unwrap_or_else(|_dropped| Err(stopped()))
        }
    });
}

async fn demand(demands: mpsc::Sender<Demand>, demand: Demand) -> Result<()> {
    demands.send(demand).await.map_err(|_closed| stopped())
}

fn stopped() -> Error {
    Error::new(ErrorKind::Closed, "the group is stopping")
}

/// Adds what the processes have counted, as far as they answer.
async fn with_counts(supervisor: &Worker, members: Vec<MemberStatus>) -> Vec<MemberStatus> {
    let asked = members.into_iter().map(|member| async move {
        let counts: Option<Result<Counts>> = match member.address.parse() {
            Ok(Address::Worker(id)) => Some(ask(supervisor, To::One(id)).await),
            Ok(Address::Process(name)) => Some(ask(supervisor, To::Process(&name)).await),
            _ => None,
        };
        // One that does not answer is shown without.
        MemberStatus { counts: counts.and_then(Result::ok), ..member }
    });
    futures_util::future::join_all(asked).await
}

async fn ask(supervisor: &Worker, to: To<'_>) -> Result<Counts> {
    supervisor.request(actions::COUNTS, &(), to, COUNTS_WAIT_MAX).await
}
