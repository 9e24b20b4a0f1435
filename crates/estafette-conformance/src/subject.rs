//! The transport under test, and how to reach it.

use std::{ffi::OsString, fmt, path::PathBuf, pin::Pin, sync::Arc};

use estafette_core::{Result, Transport, TransportUrl};

type Connecting = Pin<Box<dyn Future<Output = Result<Arc<dyn Transport>>> + Send>>;

/// A transport to run the suite on: how to connect, and where.
///
/// When the transport is `shared`, each connection is a handle to the same store, as other programs would have. When it is
/// not, each may have a store of its own, and behaviours that need a second handle use the first once more.
#[derive(Clone)]
pub struct Subject {
    connect: Arc<dyn Fn(TransportUrl) -> Connecting + Send + Sync>,
    url: String,
    agent: Option<AgentProgram>,
}

/// The program that is started as another process: it must call [`serve_agent`](crate::serve_agent).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentProgram {
    /// The executable.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
}

impl Subject {
    /// The transport that `connect` connects to at `url`.
    #[must_use]
    pub fn new<C, F>(connect: C, url: impl Into<String>) -> Self
    where
        C: Fn(TransportUrl) -> F + Send + Sync + 'static,
        F: Future<Output = Result<Arc<dyn Transport>>> + Send + 'static,
    {
        Self { connect: Arc::new(move |url| Box::pin(connect(url))), url: url.into(), agent: None }
    }

    /// The same subject, with a program that reaches it from other processes. Without one, behaviours of several processes
    /// are not run.
    #[must_use]
    pub fn with_agent(mut self, agent: AgentProgram) -> Self {
        self.agent = Some(agent);
        self
    }

    /// A new handle.
    ///
    /// # Errors
    ///
    /// Those of the URL and of connecting.
    pub async fn connect(&self) -> Result<Arc<dyn Transport>> {
        (self.connect)(self.url.parse()?).await
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    pub(crate) fn agent(&self) -> Option<&AgentProgram> {
        self.agent.as_ref()
    }
}

impl fmt::Debug for Subject {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The URL may hold a password.
        formatter.debug_struct("Subject").field("agent", &self.agent).finish_non_exhaustive()
    }
}
