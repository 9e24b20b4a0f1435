//! A few connections, lent out one piece of work at a time.
//!
//! Not sqlx's pool, which asks the server whether a connection still works each time it is given back: as long a journey as
//! most of what is done here.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use estafette_core::{Error, ErrorKind, Result};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

use super::{config::ServerConfig, connection::Connection, connector};
use crate::error::closed;

/// How work's commits are flushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flush {
    /// As the server is configured.
    Server,
    /// Later, where the engine can be asked for that: the loss of such work does no harm.
    Later,
}

/// How long between two tries to reach a server that is away.
const PAUSE: Duration = Duration::from_millis(100);

pub(crate) struct Pool {
    config: ServerConfig,
    flush: Flush,
    room: Arc<Semaphore>,
    idle: Mutex<Vec<Connection>>,
    /// Counts how often a connection broke: those from before may have broken with it.
    generation: AtomicU64,
}

/// A connection on loan. Given back with [`give_back`](Self::give_back) when all is well; else it is closed.
pub(crate) struct Loan {
    pool: Arc<Pool>,
    generation: u64,
    connection: Option<Connection>,
    _room: OwnedSemaphorePermit,
}

impl Pool {
    pub(crate) fn new(config: ServerConfig, flush: Flush, size: usize) -> Arc<Self> {
        let room = Arc::new(Semaphore::new(size));
        Arc::new(Self { config, flush, room, idle: Mutex::default(), generation: AtomicU64::new(0) })
    }

    /// Waits for a connection, and for the server until `deadline`.
    pub(crate) async fn borrow(self: &Arc<Self>, deadline: Instant) -> Result<Loan> {
        let room = Arc::clone(&self.room).acquire_owned();
        let room = match tokio::time::timeout_at(deadline, room).await {
            Ok(room) => room.map_err(|_closed| closed())?,
            Err(_elapsed) => {
                return Err(Error::new(ErrorKind::Unavailable, "every connection was busy for too long"));
            }
        };
        let generation = self.generation.load(Ordering::Acquire);
        let idle = self.idle().pop();
        let connection = match idle {
            Some(idle) => idle,
            None => self.connect(deadline).await?,
        };
        Ok(Loan { pool: Arc::clone(self), generation, connection: Some(connection), _room: room })
    }

    async fn connect(&self, deadline: Instant) -> Result<Connection> {
        loop {
            let connecting = connector::connect(&self.config, self.flush);
            let error = match tokio::time::timeout_at(deadline, connecting).await {
                Ok(Ok(connection)) => return Ok(connection),
                Ok(Err(error)) if error.kind() == ErrorKind::Unavailable => error,
                Ok(Err(error)) => return Err(error),
                Err(_elapsed) => Error::new(ErrorKind::Unavailable, "the server did not answer in time"),
            };
            if Instant::now() + PAUSE >= deadline || self.room.is_closed() {
                return Err(error);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Says that a connection broke.
    pub(crate) fn broke(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
        self.idle().clear();
    }

    /// Waits until everything is given back, and closes the connections.
    pub(crate) async fn close(&self, deadline: Instant) {
        let everything = u32::try_from(self.config.connections).unwrap_or(u32::MAX);
        let size = u32::try_from(Self::share(self.flush, self.config.connections)).unwrap_or(everything);
        let all_back = tokio::time::timeout_at(deadline, self.room.acquire_many(size)).await;
        self.room.close();
        drop(all_back);
        let idle = std::mem::take(&mut *self.idle());
        for connection in idle {
            if let Err(error) = connection.close().await {
                tracing::debug!(error = error.report(), "a connection did not close well");
            }
        }
    }

    /// How many of so many connections are for work that is flushed so.
    pub(crate) fn share(flush: Flush, connections: usize) -> usize {
        match flush {
            Flush::Server => connections.div_ceil(2).max(1),
            Flush::Later => (connections / 2).max(1),
        }
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Loan {
    /// The connection.
    ///
    /// # Errors
    ///
    /// None while it is on loan.
    pub(crate) fn connection(&mut self) -> Result<&mut Connection> {
        self.connection.as_mut().ok_or_else(closed)
    }

    /// Gives it back for the next piece of work.
    pub(crate) fn give_back(mut self) {
        let connection = self.connection.take();
        // One from before another broke has most likely broken too.
        if self.generation == self.pool.generation.load(Ordering::Acquire) {
            self.pool.idle().extend(connection);
        }
    }
}
