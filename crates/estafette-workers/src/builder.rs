//! What a group is made of: the way from the application's `main` into its processes.

use std::{collections::BTreeMap, ffi::OsString, path::PathBuf, time::Duration};

use estafette_core::{BoxError, Error, ErrorKind, Result};
use futures_util::future::BoxFuture;

use crate::{
    Address, Limits, Restart, Worker,
    address::{check_name, check_process_name},
    environment::{self, Assignment},
    error::{invalid, system},
    process,
    role::Role,
    supervisor,
};

/// The most workers of a group: each is connected to each.
pub(crate) const WORKERS_MAX: u32 = 1024;

/// What a process of the group does.
pub(crate) type Work = Box<dyn FnOnce(Worker) -> BoxFuture<'static, Result<()>> + Send>;

/// What the application does with the supervisor before the group starts.
pub(crate) type Introduction = Box<dyn FnOnce(&Worker) + Send>;

/// What runs as a process.
pub(crate) enum Program {
    /// A function of this program.
    Function(Work),
    /// Another program, with its arguments.
    Command(Vec<OsString>),
}

/// Groups of worker processes; see [`Workers::builder`].
#[derive(Debug)]
pub enum Workers {}

impl Workers {
    /// A group of `count` workers.
    pub fn builder(count: u32) -> WorkersBuilder {
        WorkersBuilder {
            plan: Plan {
                count,
                name: "workers".into(),
                limits: Limits::default(),
                restart: Restart::default(),
                grace: Duration::from_secs(10),
                heartbeat: None,
                arguments: std::env::args_os().skip(1).collect(),
                runtime_root: None,
                output: Output::Prefixed,
            },
            threads: 1,
            ready: Ready::AtFirstWait,
            processes: BTreeMap::new(),
            supervisor: Box::new(|_supervisor| {}),
        }
    }

    /// A group of as many workers as this machine runs threads at once.
    pub fn builder_auto() -> WorkersBuilder {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self::builder(u32::try_from(cores).unwrap_or(WORKERS_MAX))
    }
}

/// What becomes of the lines that workers print.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Output {
    /// They go to the supervisor's outputs, each with the worker's address before it: `[2] text`.
    Prefixed,
    /// They are kept for the error when the worker dies, but not shown.
    Hidden,
}

/// When a worker is reachable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ready {
    AtFirstWait,
    WhenTold,
}

/// What the supervisor needs to know about its group.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) count: u32,
    pub(crate) name: String,
    pub(crate) limits: Limits,
    pub(crate) restart: Restart,
    pub(crate) grace: Duration,
    pub(crate) heartbeat: Option<Duration>,
    pub(crate) arguments: Vec<OsString>,
    pub(crate) runtime_root: Option<PathBuf>,
    pub(crate) output: Output,
}

impl Plan {
    fn check(&self) -> Result<()> {
        check_count(self.count)?;
        check_name(&self.name, "group")?;
        if self.heartbeat.is_some_and(|limit| limit < Duration::from_millis(100)) {
            return Err(invalid("a heartbeat limit below 100 ms would replace workers that are only busy"));
        }
        Ok(())
    }
}

/// Refuses numbers of workers that no group can have.
pub(crate) fn check_count(count: u32) -> Result<()> {
    if (1..=WORKERS_MAX).contains(&count) {
        return Ok(());
    }
    Err(invalid(format!("{count} workers; 1 to {WORKERS_MAX} are possible")))
}

/// A group that is described but does not run yet.
#[must_use = "nothing runs before `run` is called"]
pub struct WorkersBuilder {
    plan: Plan,
    threads: usize,
    ready: Ready,
    processes: BTreeMap<String, Program>,
    supervisor: Introduction,
}

impl WorkersBuilder {
    /// Names the group: one of a name runs per user. `workers` by default.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.plan.name = name.into();
        self
    }

    /// Sets the limits of the connections between the processes.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.plan.limits = limits;
        self
    }

    /// Sets how deaths are answered.
    pub fn restart(mut self, restart: Restart) -> Self {
        self.plan.restart = restart;
        self
    }

    /// How long a process may take to stop before it is killed. Ten seconds by default.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.plan.grace = grace;
        self
    }

    /// Replaces workers that give no sign of life for `limit`, as one whose thread is blocked. Off by default.
    ///
    /// Other programs are only watched once they have given a first sign.
    pub fn heartbeat(mut self, limit: Duration) -> Self {
        self.plan.heartbeat = Some(limit);
        self
    }

    /// Gives every worker a runtime of several threads instead of one. More processes are usually the better answer.
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = threads;
        self
    }

    /// Makes a worker reachable when it calls [`Worker::ready`], instead of when its function first waits for something.
    pub fn ready_when_told(mut self) -> Self {
        self.ready = Ready::WhenTold;
        self
    }

    /// The arguments with which this program is started again for each worker: by default those it was started with.
    pub fn arguments<T: Into<OsString>>(mut self, arguments: impl IntoIterator<Item = T>) -> Self {
        self.plan.arguments = arguments.into_iter().map(Into::into).collect();
        self
    }

    /// Where directories of groups are made, instead of `$XDG_RUNTIME_DIR/estafette`, or `/tmp/estafette-UID` without it.
    pub fn runtime_root(mut self, root: impl Into<PathBuf>) -> Self {
        self.plan.runtime_root = Some(root.into());
        self
    }

    /// What becomes of the lines that workers print.
    pub fn output(mut self, output: Output) -> Self {
        self.plan.output = output;
        self
    }

    /// Adds a named process beside the numbered workers.
    pub fn process<F, Fut, E>(mut self, name: impl Into<String>, function: F) -> Self
    where
        F: FnOnce(Worker) -> Fut + Send + 'static,
        Fut: Future<Output = std::result::Result<(), E>> + Send + 'static,
        E: Into<BoxError>,
    {
        self.processes.insert(name.into(), Program::Function(work(function)));
        self
    }

    /// Adds a named process that is another program.
    pub fn process_command<T: Into<OsString>>(
        mut self,
        name: impl Into<String>,
        command: impl IntoIterator<Item = T>,
    ) -> Self {
        let command = command.into_iter().map(Into::into).collect();
        self.processes.insert(name.into(), Program::Command(command));
        self
    }

    /// Lets the application add listeners to the supervisor, and keep its handle to send and ask.
    ///
    /// `function` is called in the supervisor only, before any process is started. What it adds must be short: a listener that
    /// blocks stops the supervision.
    pub fn supervisor(mut self, function: impl FnOnce(&Worker) + Send + 'static) -> Self {
        self.supervisor = Box::new(function);
        self
    }

    /// Runs the group, with `function` in each worker, until it is stopped by SIGTERM, SIGINT, or by one of its members.
    ///
    /// Call it from a plain `fn main` that does nothing lasting before: each worker is this program started again, and gets to
    /// this very call. In a worker, `run` never returns; the process ends with its function.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Engine`] when a worker died too often, with what it printed last; [`ErrorKind::Conflict`] when a group of
    /// this name runs; [`ErrorKind::Denied`] when its directory is not private; [`ErrorKind::InvalidInput`] for settings
    /// that cannot work, or when called within an async runtime.
    pub fn run<F, Fut, E>(self, function: F) -> Result<()>
    where
        F: FnOnce(Worker) -> Fut + Send + 'static,
        Fut: Future<Output = std::result::Result<(), E>> + Send + 'static,
        E: Into<BoxError>,
    {
        self.run_programs(Program::Function(work(function)))
    }

    /// Runs the group with another program as its workers. It learns who it is from its environment, and joins the others over
    /// its socket if it likes; `docs/workers-protocol.md` says how.
    ///
    /// # Errors
    ///
    /// Those of [`run`](Self::run).
    pub fn run_command<T: Into<OsString>>(self, command: impl IntoIterator<Item = T>) -> Result<()> {
        self.run_programs(Program::Command(command.into_iter().map(Into::into).collect()))
    }

    fn run_programs(self, workers: Program) -> Result<()> {
        if tokio::runtime::Handle::try_current().is_ok() {
            return Err(invalid("call run from a plain `fn main`: it starts a runtime of its own"));
        }
        match Role::of_this_process() {
            Role::Supervisor => self.supervise(&workers),
            Role::Worker => self.work(workers),
            Role::Guardian => process::guard(),
        }
    }

    fn supervise(self, workers: &Program) -> Result<()> {
        self.plan.check()?;
        self.processes.keys().try_for_each(|name| check_process_name(name))?;
        let commands = self.processes.values().chain([workers]);
        let is_empty = |program: &Program| matches!(program, Program::Command(words) if words.is_empty());
        if commands.into_iter().any(is_empty) {
            return Err(invalid("a command needs the name of a program"));
        }
        let is_command = |program: &Program| matches!(program, Program::Command(_));
        let roster = supervisor::Roster {
            workers_are_commands: is_command(workers),
            processes: self
                .processes
                .iter()
                .map(|(name, program)| (name.clone(), is_command(program)))
                .collect(),
        };
        let root = self.plan.runtime_root.clone().unwrap_or_else(environment::runtime_root);
        supervisor::run(self.plan, &roster, &root, self.supervisor)
    }

    fn work(mut self, workers: Program) -> Result<()> {
        let Some(assignment) = Assignment::of_this_process()? else {
            return Err(invalid("started as a worker, but not told which one"));
        };
        let program = match &assignment.address {
            Address::Process(name) => self.processes.remove(&**name),
            _ => Some(workers),
        };
        let Some(program) = program else {
            let sentence = format!("this program has no process named {}", assignment.address);
            return Err(Error::new(ErrorKind::NotFound, sentence));
        };
        process::die_with(assignment.supervisor)?;
        match program {
            Program::Command(command) => process::replace_with(&command),
            Program::Function(function) => {
                let runtime = self.runtime().map_err(|error| system("starting a runtime", error))?;
                let is_told = self.ready == Ready::WhenTold;
                process::end_with(runtime.block_on(process::work(assignment, function, is_told)))
            }
        }
    }

    fn runtime(&self) -> std::io::Result<tokio::runtime::Runtime> {
        if self.threads <= 1 {
            return tokio::runtime::Builder::new_current_thread().enable_all().build();
        }
        tokio::runtime::Builder::new_multi_thread().worker_threads(self.threads).enable_all().build()
    }
}

fn work<F, Fut, E>(function: F) -> Work
where
    F: FnOnce(Worker) -> Fut + Send + 'static,
    Fut: Future<Output = std::result::Result<(), E>> + Send + 'static,
    E: Into<BoxError>,
{
    Box::new(|worker| {
        let running = function(worker);
        Box::pin(async move {
            running.await.map_err(|error| match error.into().downcast::<Error>() {
                Ok(error) => *error,
                Err(error) => Error::new(ErrorKind::Engine, error),
            })
        })
    })
}
