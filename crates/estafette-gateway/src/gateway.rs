//! Starting and stopping: [`Gateway::builder`] collects what to serve, [`Gateway`] is it running.

use std::{
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot, watch},
};
use tokio_rustls::TlsAcceptor;

use crate::{
    builtin::{Builtin, BuiltinSettings},
    core::{
        self, Core, Server,
        application::Application,
        channels::Interest,
        run::{self, Listening},
    },
    error::{Error, ErrorKind},
    handlers::{Handlers, Message, Peer},
    lua::{ScriptSettings, script::Script},
    mesh::{ConnectionId, Hub, INBOX_MAX, Request},
    queues::{QueueLimits, Queues},
    settings::ServerSettings,
};

/// Makes a server's application on a core's own thread.
type Maker = Arc<dyn Fn(&Arc<ServerSettings>) -> Result<Rc<dyn Application>, Error> + Send + Sync>;

/// What answers a server's connections.
#[derive(Clone)]
pub struct Service(Maker);

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Service").finish_non_exhaustive()
    }
}

impl Service {
    pub(crate) fn new(
        maker: impl Fn(&Arc<ServerSettings>) -> Result<Rc<dyn Application>, Error> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(maker))
    }

    /// A script.
    #[must_use]
    pub fn script(script: ScriptSettings) -> Self {
        Self::new(move |settings| Ok(Rc::new(Script::new(script.clone(), Arc::clone(settings))?)))
    }

    /// The built-in protocol.
    #[must_use]
    pub fn builtin(builtin: BuiltinSettings) -> Self {
        Self::new(move |_settings| Ok(Rc::new(Builtin::new(builtin.clone()))))
    }

    /// Handlers in Rust.
    #[must_use]
    pub fn handlers(handlers: Handlers) -> Self {
        Self::new(move |_settings| Ok(Rc::new(handlers.clone())))
    }
}

#[derive(Clone)]
struct Planned {
    settings: ServerSettings,
    service: Option<Service>,
    tls: Option<Arc<tokio_rustls::rustls::ServerConfig>>,
}

/// What a gateway will be.
pub struct Builder {
    name: String,
    node: u16,
    cores: usize,
    grace: Duration,
    queues: QueueLimits,
    servers: Vec<Planned>,
    handlers: Handlers,
}

impl std::fmt::Debug for Builder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Builder")
            .field("name", &self.name)
            .field("cores", &self.cores)
            .finish_non_exhaustive()
    }
}

impl Builder {
    /// The node's name, which events and `/v1/nodes` show, and its number, which is part of every connection id;
    /// `n1` and 1 by default. Two nodes of a cluster must differ in both.
    #[must_use]
    pub fn node(mut self, name: impl Into<String>, number: u16) -> Self {
        (self.name, self.node) = (name.into(), number);
        self
    }

    /// Threads that hold connections; as many as the machine has cores by default.
    #[must_use]
    pub fn cores(mut self, cores: usize) -> Self {
        self.cores = cores.clamp(1, ConnectionId::CORES_MAX);
        self
    }

    /// How long stopping may take; 30 s by default.
    #[must_use]
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// How much the queues hold.
    #[must_use]
    pub fn queues(mut self, limits: QueueLimits) -> Self {
        self.queues = limits;
        self
    }

    /// Adds a server that is answered by the builder's handlers.
    #[must_use]
    pub fn listen(mut self, settings: ServerSettings) -> Self {
        self.servers.push(Planned { settings, service: None, tls: None });
        self
    }

    /// Adds a server with a service of its own.
    #[must_use]
    pub fn serve(mut self, settings: ServerSettings, service: Service) -> Self {
        self.servers.push(Planned { settings, service: Some(service), tls: None });
        self
    }

    /// Adds TLS to the server added last.
    #[must_use]
    pub fn tls(mut self, config: Arc<tokio_rustls::rustls::ServerConfig>) -> Self {
        if let Some(server) = self.servers.last_mut() {
            server.tls = Some(config);
        }
        self
    }

    /// The handler of messages, for servers without a service of their own.
    #[must_use]
    pub fn on_message(mut self, message: impl Fn(&Peer<'_>, Message<'_>) + Send + Sync + 'static) -> Self {
        self.handlers = self.handlers.on_message(message);
        self
    }

    /// All handlers, for servers without a service of their own.
    #[must_use]
    pub fn handlers(mut self, handlers: Handlers) -> Self {
        self.handlers = handlers;
        self
    }

    /// Binds every address and starts the threads; returns when all of them serve.
    ///
    /// # Errors
    /// [`Error`]; nothing runs then.
    pub async fn start(self) -> Result<Gateway, Error> {
        let queues = Queues::new(self.queues.clone());
        let (senders, receivers): (Vec<_>, Vec<_>) =
            (0..self.cores).map(|_| mpsc::channel(INBOX_MAX)).unzip();
        let hub = Hub::new(
            self.name.clone(),
            self.node,
            senders.into_iter().map(|sender| (sender, Arc::default())).collect(),
            queues,
        );
        let (addresses, mut listeners) = self.bind()?;
        let (stop, stopped) = watch::channel(false);
        let interest = Arc::new(Interest::new(self.cores));
        let mut threads = Vec::with_capacity(self.cores);
        let mut ready = Vec::with_capacity(self.cores);
        for (number, inbox) in receivers.into_iter().enumerate() {
            let part = Part {
                number: u8::try_from(number).unwrap_or(u8::MAX),
                node: self.node,
                cores: self.cores,
                grace: self.grace,
                hub: hub.clone(),
                interest: Arc::clone(&interest),
                inbox,
                servers: self
                    .servers
                    .iter()
                    .cloned()
                    .zip(listeners.iter_mut().filter_map(Vec::pop))
                    .map(|(server, listener)| (self.complete(server), listener))
                    .collect(),
                stop: stopped.clone(),
            };
            let (told, tells) = oneshot::channel();
            let builder = thread::Builder::new().name(format!("gateway-{number}"));
            let thread = builder
                .spawn(move || part.run(told))
                .map_err(|error| Error::with(ErrorKind::Runtime, error))?;
            threads.push(thread);
            ready.push(tells);
        }
        for tells in ready {
            tells.await.map_err(|error| Error::with(ErrorKind::Runtime, error))??;
        }
        Ok(Gateway { hub, addresses, stop, threads })
    }

    fn bind(&self) -> Result<(Vec<SocketAddr>, Vec<Vec<std::net::TcpListener>>), Error> {
        let mut bound = Vec::with_capacity(self.servers.len());
        for server in &self.servers {
            let address = server.settings.bind;
            let listeners = run::listeners(address, self.cores)
                .map_err(|error| Error::with(ErrorKind::Bind(address.to_string()), error))?;
            bound.push(listeners);
        }
        Ok(bound.into_iter().unzip())
    }

    fn complete(&self, server: Planned) -> (Arc<ServerSettings>, Service, Option<TlsAcceptor>) {
        let service = server.service.unwrap_or_else(|| Service::handlers(self.handlers.clone()));
        (Arc::new(server.settings), service, server.tls.map(TlsAcceptor::from))
    }
}

type Prepared = ((Arc<ServerSettings>, Service, Option<TlsAcceptor>), std::net::TcpListener);

/// What one thread is given.
struct Part {
    number: u8,
    node: u16,
    cores: usize,
    grace: Duration,
    hub: Hub,
    interest: Arc<Interest>,
    inbox: mpsc::Receiver<Request>,
    servers: Vec<Prepared>,
    stop: watch::Receiver<bool>,
}

impl Part {
    fn run(self, told: oneshot::Sender<Result<(), Error>>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = match runtime {
            Ok(runtime) => runtime,
            Err(error) => return drop(told.send(Err(Error::with(ErrorKind::Runtime, error)))),
        };
        let tasks = tokio::task::LocalSet::new();
        tasks.block_on(&runtime, async move {
            let first = run::first_sequence();
            let core = Rc::new(Core::new((self.node, self.number), first, self.hub, self.interest));
            core::set_current(Some(Rc::clone(&core)));
            match listen(self.servers, self.cores) {
                Ok(servers) => {
                    drop(told.send(Ok(())));
                    run::run(core, servers, self.inbox, self.stop, self.grace).await;
                }
                Err(error) => drop(told.send(Err(error))),
            }
            core::set_current(None);
        });
    }
}

fn listen(servers: Vec<Prepared>, cores: usize) -> Result<Vec<Listening>, Error> {
    let mut listening = Vec::with_capacity(servers.len());
    for ((settings, Service(maker), tls), listener) in servers {
        let application = maker(&settings)?;
        let listener =
            TcpListener::from_std(listener).map_err(|error| Error::with(ErrorKind::Runtime, error))?;
        let connections_max = settings.limits.connections_max.div_ceil(cores);
        let connections = std::cell::Cell::new(0);
        let server = Rc::new(Server { settings, application, connections, connections_max });
        listening.push(Listening { listener, server, tls });
    }
    Ok(listening)
}

/// A running gateway. Dropping it stops it without waiting.
#[derive(Debug)]
pub struct Gateway {
    hub: Hub,
    addresses: Vec<SocketAddr>,
    stop: watch::Sender<bool>,
    threads: Vec<JoinHandle<()>>,
}

impl Gateway {
    /// A gateway without servers, to be added.
    #[must_use]
    pub fn builder() -> Builder {
        Builder {
            name: "n1".into(),
            node: 1,
            cores: thread::available_parallelism().map_or(1, usize::from).min(ConnectionId::CORES_MAX),
            grace: Duration::from_secs(30),
            queues: QueueLimits::default(),
            servers: Vec::new(),
            handlers: Handlers::default(),
        }
    }

    /// Its connections.
    #[must_use]
    pub fn hub(&self) -> &Hub {
        &self.hub
    }

    /// Where its servers listen, in the order in which they were added.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Stops: accepts nothing more, tells every WebSocket to connect again (close 1012) at a steady rate, and waits
    /// until all connections have ended or the grace period is over.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        let threads = std::mem::take(&mut self.threads);
        let joined = tokio::task::spawn_blocking(move || {
            for thread in threads {
                // A core that panicked has nothing more to stop.
                drop(thread.join());
            }
        });
        drop(joined.await);
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.stop.send_replace(true);
    }
}
