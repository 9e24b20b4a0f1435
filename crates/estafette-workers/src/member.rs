//! The worker's side of supervision: joining, beating, stopping.

use std::{sync::Arc, time::Duration};

use estafette_core::{Error, ErrorKind, Result};
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    Address, Context, Presence, To, Worker,
    endpoint::{Endpoint, Identity},
    environment::Assignment,
    error::{invalid, system},
    inbound,
    members::{Members, actions},
};

/// A process of a group, from its start to its end.
pub(crate) struct Membership {
    pub(crate) worker: Worker,
    leaving: tokio::task::JoinHandle<()>,
}

impl Membership {
    /// Takes up `assignment` within the current runtime: reachable once it is ready, stopping at SIGTERM.
    ///
    /// # Errors
    ///
    /// When the socket cannot be made.
    pub(crate) fn start(assignment: Assignment) -> Result<Self> {
        let Assignment { address, count, incarnation, group, directory, limits, heartbeat, .. } = assignment;
        let identity = Identity { address, incarnation, group, directory };
        // Until the supervisor says more: everybody is being started.
        let members = Members::starting(count);
        let endpoint = Endpoint::start(identity, limits, members);
        listen_to_supervisor(&endpoint);
        inbound::listen(&endpoint)?;
        endpoint.spawn(join(Arc::clone(&endpoint), heartbeat));
        let mut terminate =
            signal(SignalKind::terminate()).map_err(|error| system("listening for SIGTERM", error))?;
        let stopped = Arc::clone(&endpoint);
        endpoint.spawn(async move {
            terminate.recv().await;
            stopped.stopping.send_replace(true);
        });
        let left = Arc::clone(&endpoint);
        let leaving = tokio::spawn(async move {
            // The sender lives in the endpoint, so waiting for it cannot fail.
            drop(left.stopping.subscribe().wait_for(|stopping| *stopping).await);
            inbound::leave(&left).await;
        });
        Ok(Self { worker: Worker::of(endpoint), leaving })
    }

    /// Handles what was sent until now, writes what waits, and closes everything.
    pub(crate) async fn end(self) {
        let endpoint = self.worker.endpoint();
        endpoint.stopping.send_replace(true);
        // It neither panics nor is it cancelled.
        drop(self.leaving.await);
        endpoint.close().await;
    }
}

impl Worker {
    /// Joins the group that started this process, when it was started by a supervisor as a program of its own.
    ///
    /// Within a tokio runtime. Add the listeners, then call [`ready`](Self::ready); after [`stopping`](Self::stopping), call
    /// [`close`](Self::close) before the program ends.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`] when this process was not started by a supervisor; an error when the socket cannot be
    /// made.
    pub fn from_environment() -> Result<Self> {
        let Some(assignment) = Assignment::of_this_process()? else {
            return Err(invalid("this process was not started by a supervisor of workers"));
        };
        let membership = Membership::start(assignment)?;
        Ok(membership.worker)
    }

    /// Ends taking part: handles what was sent until now, writes what waits, and disconnects.
    ///
    /// Only needed after [`from_environment`](Self::from_environment).
    pub async fn close(self) {
        let endpoint = self.endpoint();
        inbound::leave(endpoint).await;
        endpoint.close().await;
    }
}

/// Takes the supervisor's news and answers what it asks.
fn listen_to_supervisor(endpoint: &Arc<Endpoint>) {
    let worker = Worker::of(Arc::clone(endpoint));
    worker.on(actions::MEMBERS, |members: Members, context: Context| async move {
        if *context.from() == Address::Supervisor {
            context.worker().endpoint().set_members(members);
            return Ok(());
        }
        Err(Error::new(ErrorKind::Denied, "only the supervisor says who belongs to the group"))
    });
    worker.on(actions::COUNTS, |(): (), context: Context| async move {
        Ok::<_, Error>(context.worker().counts())
    });
}

/// Tells the supervisor that this process listens, and goes on telling it when it wants to know.
async fn join(endpoint: Arc<Endpoint>, heartbeat: Option<Duration>) {
    let worker = Worker::of(Arc::clone(&endpoint));
    // The sender lives in the endpoint, so waiting for it cannot fail.
    drop(endpoint.ready.subscribe().wait_for(|ready| *ready).await);
    let wait_max = endpoint.limits.send_wait_max;
    let joined: Result<Members> =
        worker.request(actions::JOIN, &endpoint.incarnation, To::Supervisor, wait_max).await;
    match joined {
        Ok(members) => endpoint.set_members(members),
        Err(error) => {
            tracing::error!(error = %error.report(), "the supervisor does not know this process; stopping");
            endpoint.stopping.send_replace(true);
        }
    }
    let Some(pause) = heartbeat else { return };
    loop {
        tokio::time::sleep(pause).await;
        if let Err(error) = worker.send(actions::HEARTBEAT, &endpoint.incarnation, To::Supervisor).await {
            tracing::warn!(error = %error.report(), "a heartbeat did not reach the supervisor");
        }
    }
}

impl Members {
    /// `count` workers of which nothing is known yet.
    pub(crate) fn starting(count: u32) -> Self {
        Self { workers: (0..count).map(|_| Presence::Starting).collect(), ..Self::default() }
    }
}
