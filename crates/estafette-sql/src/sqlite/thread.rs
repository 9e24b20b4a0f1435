//! The thread that owns a connection, and the work it is given.
//!
//! Work that waits at the same time is done in one transaction, so that many publishers and consumers share one flush
//! (group commit). When part of a group fails, the group is rolled back and each work done again in a transaction of its own:
//! an error is only ever the error of the work that caused it.

use std::{sync::Mutex, thread};

use estafette_core::{Durability, Error, ErrorKind, Result};
use sqlx::{Connection as _, SqliteConnection};
use tokio::sync::{mpsc, oneshot};

use super::{checkpoint::Log, error::from_sqlx, raw::Database, session::Session};
use crate::error::closed;

/// How much work may wait, and how much shares a transaction.
const WAITING_MAX: usize = 1024;
const GROUP_MAX: usize = 64;

/// How work wants to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Mode {
    /// Without a transaction: it only reads.
    Read,
    /// In a transaction whose loss in a power cut does no harm.
    Relaxed,
    /// In a transaction that is flushed as configured.
    Durable,
}

/// Work for the thread. It may be done more than once; only the last time counts.
trait Work: Send {
    fn mode(&self) -> Mode;
    /// Whether there is nothing to write, so that no transaction is needed.
    fn is_needless(&mut self, session: &mut Session<'_>) -> Result<bool>;
    fn run(&mut self, session: &mut Session<'_>) -> Result<()>;
    /// Says what became of it.
    fn finish(self: Box<Self>, outcome: Result<()>);
}

struct Task<T, P, R, F> {
    mode: Mode,
    probe: P,
    run: R,
    value: Option<T>,
    finish: F,
}

impl<T, P, R, F> Work for Task<T, P, R, F>
where
    T: Send,
    P: FnMut(&mut Session<'_>) -> Result<Option<T>> + Send,
    R: FnMut(&mut Session<'_>) -> Result<T> + Send,
    F: FnOnce(Result<T>) + Send,
{
    fn mode(&self) -> Mode {
        self.mode
    }

    fn is_needless(&mut self, session: &mut Session<'_>) -> Result<bool> {
        self.value = (self.probe)(session)?;
        Ok(self.value.is_some())
    }

    fn run(&mut self, session: &mut Session<'_>) -> Result<()> {
        self.value = Some((self.run)(session)?);
        Ok(())
    }

    fn finish(self: Box<Self>, outcome: Result<()>) {
        let value = self.value;
        (self.finish)(outcome.and_then(|()| value.ok_or_else(|| ErrorKind::Engine.into())));
    }
}

/// A connection's thread. It ends when this is dropped or closed.
pub(crate) struct Thread {
    work: Mutex<Option<mpsc::Sender<Box<dyn Work>>>>,
    ended: Mutex<Option<oneshot::Receiver<Result<()>>>>,
}

impl Thread {
    /// Starts a thread for `connection` whose durable commits are flushed as `durability` says.
    /// The one that writes looks after the log.
    pub(crate) fn start(
        name: &str,
        connection: SqliteConnection,
        durability: Durability,
        log: Option<Log>,
    ) -> Result<Self> {
        let (work, waiting) = mpsc::channel(WAITING_MAX);
        let (end, ended) = oneshot::channel();
        let runtime = tokio::runtime::Handle::current();
        let serve = move || {
            let outcome = serve(&runtime, connection, waiting, (durability, log));
            drop(end.send(outcome));
        };
        match thread::Builder::new().name(name.to_owned()).spawn(serve) {
            Ok(_detached) => Ok(Self { work: Mutex::new(Some(work)), ended: Mutex::new(Some(ended)) }),
            Err(source) => Err(Error::new(ErrorKind::Unavailable, source)),
        }
    }

    /// Does `run` there, and returns what it returned once that is committed.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        mode: Mode,
        run: impl FnMut(&mut Session<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.run_unless(mode, |_session| Ok(None), run).await
    }

    /// Does `run` there unless `probe` finds, without a transaction, that it is needless, and what to return instead.
    pub(crate) async fn run_unless<T: Send + 'static>(
        &self,
        mode: Mode,
        probe: impl FnMut(&mut Session<'_>) -> Result<Option<T>> + Send + 'static,
        run: impl FnMut(&mut Session<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        // Who asked may have gone: then the value is dropped, and deliveries in it return to their queue.
        let finish = move |value| drop(reply.send(value));
        let task = Box::new(Task { mode, probe, run, value: None, finish });
        let sender = self.sender().ok_or_else(closed)?;
        sender.send(task).await.map_err(|_ended| closed())?;
        drop(sender);
        answer.await.unwrap_or_else(|_ended| Err(closed()))
    }

    /// Has `run` done some time, if there is room for it to wait, and then calls `finish`. Never blocks.
    pub(crate) fn post(
        &self,
        run: impl FnMut(&mut Session<'_>) -> Result<()> + Send + 'static,
        finish: impl FnOnce(Result<()>) + Send + 'static,
    ) {
        let probe = |_: &mut Session<'_>| Ok(None);
        let task = Task { mode: Mode::Relaxed, probe, run, value: None, finish };
        if let Some(sender) = self.sender()
            && sender.try_send(Box::new(task)).is_err()
        {
            tracing::debug!("no room to return a delivery; its lease ends by itself");
        }
    }

    /// Does what waits, closes the connection and ends the thread.
    pub(crate) async fn close(&self) -> Result<()> {
        drop(self.work.lock().map(|mut work| work.take()));
        let ended = self.ended.lock().ok().and_then(|mut ended| ended.take());
        match ended {
            Some(ended) => ended.await.unwrap_or_else(|_panicked| Err(ErrorKind::Engine.into())),
            None => Ok(()),
        }
    }

    fn sender(&self) -> Option<mpsc::Sender<Box<dyn Work>>> {
        self.work.lock().ok()?.clone()
    }
}

fn serve(
    runtime: &tokio::runtime::Handle,
    mut connection: SqliteConnection,
    mut waiting: mpsc::Receiver<Box<dyn Work>>,
    (durability, mut log): (Durability, Option<Log>),
) -> Result<()> {
    let mut handle = runtime.block_on(connection.lock_handle()).map_err(from_sqlx)?;
    {
        let database = Database::new(&mut handle);
        let mut session = Session::new(&database);
        while let Some(first) = waiting.blocking_recv() {
            let mut group = vec![first];
            while group.len() < GROUP_MAX
                && let Ok(next) = waiting.try_recv()
            {
                group.push(next);
            }
            work_off(&mut session, group, durability);
            if let Some(log) = &mut log {
                log.written(&mut session);
            }
        }
        session.checkpoint().or_else(|error| match error.kind() {
            // Somebody else is reading or writing, and will checkpoint.
            ErrorKind::Unavailable => Ok(()),
            _ => Err(error),
        })?;
    }
    drop(handle);
    runtime.block_on(connection.close()).map_err(from_sqlx)
}

/// Does a group of work: what only reads at once, the rest in one transaction.
fn work_off(session: &mut Session<'_>, group: Vec<Box<dyn Work>>, durability: Durability) {
    let mut writing = Vec::with_capacity(group.len());
    for mut work in group {
        let done = match work.mode() {
            Mode::Read => work.run(session).map(|()| true),
            _ => work.is_needless(session),
        };
        match done {
            Ok(false) => writing.push(work),
            Ok(true) => work.finish(Ok(())),
            Err(error) => work.finish(Err(error)),
        }
    }
    match commit(session, &mut writing, durability) {
        Ok(()) => writing.into_iter().for_each(|work| work.finish(Ok(()))),
        Err(error) if writing.len() == 1 => {
            writing.into_iter().for_each(|work| work.finish(Err(error.clone())))
        }
        Err(_of_one) => {
            for mut work in writing {
                let outcome = commit(session, std::slice::from_mut(&mut work), durability);
                work.finish(outcome);
            }
        }
    }
}

fn commit(session: &mut Session<'_>, group: &mut [Box<dyn Work>], durability: Durability) -> Result<()> {
    let Some(mode) = group.iter().map(|work| work.mode()).max() else { return Ok(()) };
    session.begin(if mode == Mode::Durable { durability } else { Durability::System })?;
    for work in group.iter_mut() {
        if let Err(error) = work.run(session) {
            session.roll_back();
            return Err(error);
        }
    }
    session.commit()
}
