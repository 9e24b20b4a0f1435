//! Keeps a link: connects when there is none, to whichever broker answers, with growing pauses.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use estafette_core::{Backoff, Error, Result, Retry};
use tokio::{sync::Notify, time::Instant};

use crate::{
    config::AmqpConfig,
    error,
    link::{self, Link},
};

/// Connects for one purpose, again and again when needed.
pub(crate) struct Connector {
    config: Arc<AmqpConfig>,
    role: &'static str,
    current: tokio::sync::Mutex<Option<Arc<Link>>>,
    last_error: Mutex<Option<Error>>,
    closed: AtomicBool,
    closed_notify: Notify,
}

impl Connector {
    pub(crate) fn new(config: Arc<AmqpConfig>, role: &'static str) -> Self {
        Self {
            config,
            role,
            current: tokio::sync::Mutex::default(),
            last_error: Mutex::default(),
            closed: AtomicBool::new(false),
            closed_notify: Notify::new(),
        }
    }

    /// A link that was open a moment ago; connects when there is none. Fails with the last reason when none could be had by
    /// `deadline`, and at once when trying again is pointless.
    pub(crate) async fn link(&self, deadline: Instant) -> Result<Arc<Link>> {
        let closing = self.closed_notify.notified();
        if self.closed.load(Ordering::Acquire) {
            return Err(error::closed());
        }
        tokio::select! {
            linked = tokio::time::timeout_at(deadline, self.connect()) => match linked {
                Ok(linked) => linked,
                Err(_) => Err(self.last_error().clone().unwrap_or_else(error::hung_up)),
            },
            () = closing => Err(error::closed()),
        }
    }

    async fn connect(&self) -> Result<Arc<Link>> {
        let mut current = self.current.lock().await;
        if let Some(link) = current.as_ref().filter(|link| link.is_open()) {
            return Ok(Arc::clone(link));
        }
        if let Some(error) = current.take().and_then(|link| link.error()) {
            tracing::warn!(role = self.role, error = error.report(), "the connection to the broker is lost");
        }
        let pauses = Retry {
            backoff: Backoff::Exponential {
                first: Duration::from_millis(50),
                factor: 2.0,
                max: Duration::from_secs(5),
            },
            jitter: 0.3,
            ..Retry::default()
        };
        let mut failures = 0;
        loop {
            for endpoint in &self.config.endpoints {
                match link::open(&self.config, endpoint, self.role).await {
                    Ok(link) => {
                        tracing::debug!(role = self.role, %endpoint, "connected to the broker");
                        *current = Some(Arc::clone(&link));
                        return Ok(link);
                    }
                    Err(error) if error.is_retryable() => *self.last_error() = Some(error),
                    Err(error) => return Err(error),
                }
            }
            failures += 1;
            tokio::time::sleep(pauses.delay(failures, fastrand::f64())).await;
        }
    }

    fn last_error(&self) -> std::sync::MutexGuard<'_, Option<Error>> {
        self.last_error.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Says goodbye; there are no links any more.
    pub(crate) async fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.closed_notify.notify_waiters();
        let link = self.current.lock().await.take();
        if let Some(link) = link {
            link.close().await;
        }
    }
}
