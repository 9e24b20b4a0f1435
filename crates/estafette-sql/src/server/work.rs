//! Doing a piece of work on a connection, again where that is safe, for as long as patience lasts.

use std::{ops::ControlFlow, sync::Arc, time::Duration};

use estafette_core::{Error, ErrorKind, Result};
use tokio::time::{Instant, error::Elapsed};

use super::pool::{Loan, Pool};

/// Whether work may be done again when nobody knows whether it was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// It comes to the same.
    Freely,
    /// It would be done twice.
    Never,
}

/// How long before work that was refused is tried again, at first and at most.
const PAUSE: Duration = Duration::from_millis(5);
const PAUSE_MAX: Duration = Duration::from_millis(250);

/// The tries at one piece of work.
pub(crate) struct Tries {
    pool: Arc<Pool>,
    repeat: Repeat,
    pub(crate) deadline: Instant,
    pause: Duration,
}

/// Does work on a connection: `work!(tries, connection => ...)`, where the right side is an expression of a [`Result`] that may
/// use `?` and `.await`.
///
/// When the server is away, or undoes the work because of a deadlock, it is done again until patience is at its end. Fails as
/// the work does; with [`ErrorKind::Unavailable`] when nothing was done in time, [`ErrorKind::TimedOut`] when that is unknown.
///
/// A macro, since a closure that lends its argument to a future cannot say that the future may change threads.
macro_rules! work {
    ($tries:expr, $connection:ident => $work:expr) => {{
        let mut tries = $tries;
        loop {
            let mut loan = match tries.borrow().await {
                Ok(loan) => loan,
                Err(error) => break Err(error),
            };
            let done = tokio::time::timeout_at(tries.deadline, async {
                let $connection: &mut $crate::server::connection::Connection = loan.connection()?;
                $work
            });
            let done = done.await;
            if let std::ops::ControlFlow::Break(outcome) = tries.judge(loan, done).await {
                break outcome;
            }
        }
    }};
}
pub(crate) use work;

impl Tries {
    pub(crate) fn new(pool: &Arc<Pool>, patience: Duration, repeat: Repeat) -> Self {
        Self { pool: Arc::clone(pool), repeat, deadline: Instant::now() + patience, pause: PAUSE }
    }

    /// A connection for the next try.
    pub(crate) async fn borrow(&self) -> Result<Loan> {
        self.pool.borrow(self.deadline).await
    }

    /// What came of a try, unless there is to be another.
    pub(crate) async fn judge<T>(
        &mut self,
        loan: Loan,
        done: Result<Result<T>, Elapsed>,
    ) -> ControlFlow<Result<T>> {
        let error = match done {
            Ok(Ok(value)) => {
                loan.give_back();
                return ControlFlow::Break(Ok(value));
            }
            Ok(Err(error)) => error,
            Err(_elapsed) => Error::new(ErrorKind::TimedOut, "the server did not answer in time"),
        };
        let again = match error.kind() {
            ErrorKind::TimedOut => {
                self.pool.broke();
                self.repeat == Repeat::Freely
            }
            ErrorKind::Unavailable => true,
            _ => false,
        };
        undo(loan, error.kind()).await;
        if !again || Instant::now() + self.pause >= self.deadline {
            return ControlFlow::Break(Err(error));
        }
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        ControlFlow::Continue(())
    }
}

/// Gives back a connection on which work failed, perhaps in the middle of a transaction; closes it when it may be of no use.
async fn undo(mut loan: Loan, kind: ErrorKind) {
    let is_sound = !matches!(kind, ErrorKind::TimedOut | ErrorKind::Unavailable | ErrorKind::Engine);
    if is_sound
        && let Ok(connection) = loan.connection()
        && connection.script("ROLLBACK").await.is_ok()
    {
        loan.give_back();
    }
}
