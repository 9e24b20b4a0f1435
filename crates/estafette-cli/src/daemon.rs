//! Commands that run until they are asked to stop: what systemd, supervisord and scripts want to know about them.

use std::{
    fs::File,
    io::{Read as _, Seek as _, Write as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, bail};
use estafette::Bus;
use rustix::fs::{FlockOperation, flock};
use sd_notify::NotifyState;
use tokio::{
    signal::unix::{SignalKind, signal},
    task::JoinSet,
};

use crate::session;

/// The longest pause between two attempts to connect.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// The options of every such command.
#[derive(clap::Args)]
#[command(next_help_heading = "As a service")]
pub(crate) struct Options {
    /// Write this process's number to a file, which is locked while it runs and removed at the end
    #[arg(long, value_name = "FILE")]
    pid_file: Option<PathBuf>,
}

/// What is kept up while a command runs as a service.
pub(crate) struct Daemon {
    /// Removed when this is dropped.
    _pid_file: Option<PidFile>,
    /// Ended when this is dropped.
    tasks: Arc<Mutex<JoinSet<()>>>,
}

impl Options {
    /// Begins to be a service: writes the file, and tells the watchdog now and then that this process is alive.
    ///
    /// # Errors
    ///
    /// When another process holds the file, or it cannot be written.
    pub(crate) fn start(&self) -> anyhow::Result<Daemon> {
        let pid_file = self.pid_file.as_deref().map(PidFile::write).transpose()?;
        let mut tasks = JoinSet::new();
        if let Some(limit) = sd_notify::watchdog_enabled() {
            tasks.spawn(async move {
                // Twice within the limit, as sd_watchdog_enabled(3) advises.
                let mut ticks = tokio::time::interval((limit / 2).max(Duration::from_millis(1)));
                loop {
                    ticks.tick().await;
                    notify(NotifyState::Watchdog);
                }
            });
        }
        Ok(Daemon { _pid_file: pid_file, tasks: Arc::new(Mutex::new(tasks)) })
    }
}

impl Daemon {
    /// What tells systemd that the service does its work now, and that it stops as soon as it is asked to. To be called when the
    /// service listens to signals itself: from then on the first one ends nothing by itself.
    pub(crate) fn ready(&self) -> impl FnOnce() + Send + 'static {
        let tasks = Arc::clone(&self.tasks);
        move || {
            // Before systemd is told: it may ask for the end at once.
            let stopped = stopped();
            notify(NotifyState::Ready);
            let stopping = async move {
                stopped.await;
                notify(NotifyState::Stopping);
            };
            tasks.lock().unwrap_or_else(PoisonError::into_inner).spawn(stopping);
        }
    }
}

/// Ends when the service is asked to stop; listens from now on.
pub(crate) fn stopped() -> impl Future<Output = ()> + Send + 'static {
    let listen =
        |kind| signal(kind).inspect_err(|error| tracing::warn!(%error, "signals cannot be heard")).ok();
    let (terminate, interrupt) = (listen(SignalKind::terminate()), listen(SignalKind::interrupt()));
    async move {
        let (Some(mut terminate), Some(mut interrupt)) = (terminate, interrupt) else {
            return std::future::pending().await;
        };
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    }
}

/// Without systemd, nothing.
fn notify(state: NotifyState) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "systemd cannot be told how this service is");
    }
}

/// A bus on `url`, tried again and again while the engine cannot be reached.
///
/// # Errors
///
/// Those that trying again does not cure.
pub(crate) async fn connect_patiently(url: &str) -> anyhow::Result<Bus> {
    let mut pause = Duration::from_millis(100);
    loop {
        match session::connect(url).await {
            Err(error) if is_retryable(&error) => {
                tracing::warn!(error = format!("{error:#}"), "trying again in {pause:?}");
                tokio::time::sleep(pause).await;
                pause = PAUSE_MAX.min(pause * 2);
            }
            connected => return connected,
        }
    }
}

fn is_retryable(error: &anyhow::Error) -> bool {
    error.downcast_ref::<estafette::Error>().is_some_and(estafette::Error::is_retryable)
}

struct PidFile {
    path: PathBuf,
    /// Locked as long as it is open, so that what a killed process left is no obstacle.
    _file: File,
}

impl PidFile {
    fn write(path: &Path) -> anyhow::Result<Self> {
        let context = || format!("cannot write the process's number to {}", path.display());
        let mut file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .with_context(context)?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            let mut holder = String::new();
            file.read_to_string(&mut holder).with_context(context)?;
            bail!("another process runs already: {} is held by process {}", path.display(), holder.trim());
        }
        file.set_len(0).with_context(context)?;
        file.rewind().with_context(context)?;
        writeln!(file, "{}", std::process::id()).with_context(context)?;
        Ok(Self { path: path.to_owned(), _file: file })
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // Before the lock goes: afterwards the name may be another process's.
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(%error, path = %self.path.display(), "the file with the process's number stays");
        }
    }
}
