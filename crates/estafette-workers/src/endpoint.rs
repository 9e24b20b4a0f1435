//! A participant's end of everything: its identity, its listeners, the ways to its peers, and its tasks.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, RwLock, RwLockWriteGuard, atomic::AtomicUsize},
};

use tokio::{sync::watch, task::JoinSet};

use crate::{
    Address, builder::WORKERS_MAX, counters::Counters, directory::Directory, inbound::Callers,
    listener::Listeners, local::LocalLink, members::Members, peer::Peer, settings::Limits,
};

/// What one process has in a group; [`Worker`](crate::Worker) is the handle of it.
pub(crate) struct Endpoint {
    pub(crate) address: Address,
    pub(crate) incarnation: u64,
    pub(crate) group: String,
    pub(crate) directory: Directory,
    pub(crate) limits: Limits,
    pub(crate) listeners: Listeners,
    pub(crate) counters: Counters,
    pub(crate) members: watch::Sender<Members>,
    /// Becomes true when the participant is to stop.
    pub(crate) stopping: watch::Sender<bool>,
    /// Becomes true when its listeners are in place.
    pub(crate) ready: watch::Sender<bool>,
    /// Whose turn it is when a message is for anyone.
    pub(crate) turn: AtomicUsize,
    pub(crate) callers: Callers,
    peers: RwLock<Peers>,
    tasks: Mutex<JoinSet<()>>,
}

/// Who an endpoint is and where.
pub(crate) struct Identity {
    pub(crate) address: Address,
    pub(crate) incarnation: u64,
    pub(crate) group: String,
    pub(crate) directory: Directory,
}

impl Endpoint {
    /// An endpoint that can send; [`listen`](crate::inbound::listen) makes it reachable. Within a runtime.
    pub(crate) fn start(identity: Identity, limits: Limits, members: Members) -> Arc<Self> {
        let Identity { address, incarnation, group, directory } = identity;
        let endpoint = Arc::new(Self {
            address,
            incarnation,
            group,
            directory,
            limits,
            listeners: Listeners::default(),
            counters: Counters::default(),
            members: watch::Sender::new(members),
            stopping: watch::Sender::new(false),
            ready: watch::Sender::new(false),
            turn: AtomicUsize::new(0),
            callers: Callers::default(),
            peers: RwLock::default(),
            tasks: Mutex::default(),
        });
        let own = Arc::new(LocalLink::new(endpoint.address.clone(), &endpoint.limits));
        endpoint.spawn(Arc::clone(&own).run(Arc::clone(&endpoint)));
        let peer = Arc::new(Peer::with_link(endpoint.address.clone(), own));
        endpoint.peers_mut().insert(peer);
        endpoint
    }

    /// Runs `task` for as long as the endpoint lasts.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task);
    }

    /// The peer at `address`, connected or not.
    pub(crate) fn peer(&self, address: &Address) -> Arc<Peer> {
        if let Some(peer) = self.with_peer(address, Arc::clone) {
            return peer;
        }
        let mut peers = self.peers_mut();
        // Somebody may have been faster.
        if let Some(peer) = peers.find(address) {
            return Arc::clone(peer);
        }
        let peer = Arc::new(Peer::new(address.clone()));
        peers.insert(Arc::clone(&peer));
        peer
    }

    /// Does something with the peer at `address`, when it is known.
    pub(crate) fn with_peer<T>(&self, address: &Address, with: impl FnOnce(&Arc<Peer>) -> T) -> Option<T> {
        self.peers.read().unwrap_or_else(PoisonError::into_inner).find(address).map(with)
    }

    /// Takes the supervisor's word for who belongs to the group, and forgets the peers that no longer do.
    pub(crate) fn set_members(&self, members: Members) {
        if members.version < self.members.borrow().version {
            return;
        }
        self.peers_mut().retain(|address| *address == self.address || members.presence(address).is_some());
        self.members.send_replace(members);
    }

    /// Writes what waits for peers, ends all tasks and with them all connections.
    pub(crate) async fn close(&self) {
        let peers: Vec<_> = self.peers_mut().all().cloned().collect();
        let finishing = peers.iter().filter_map(|peer| peer.link()).map(|link| async move {
            link.finish(self).await;
        });
        futures_util::future::join_all(finishing).await;
        let mut tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        tasks.shutdown().await;
        // Listeners hold handles of the endpoint: taken apart here, or it would keep itself alive.
        self.listeners.clear();
    }

    fn peers_mut(&self) -> RwLockWriteGuard<'_, Peers> {
        self.peers.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The peers that were needed so far: workers by their number, which costs less to find than a name.
#[derive(Default)]
struct Peers {
    workers: Vec<Option<Arc<Peer>>>,
    others: HashMap<Address, Arc<Peer>>,
}

impl Peers {
    fn find(&self, address: &Address) -> Option<&Arc<Peer>> {
        match address {
            Address::Worker(id) if *id < WORKERS_MAX => {
                self.workers.get(usize::try_from(*id).ok()?)?.as_ref()
            }
            other => self.others.get(other),
        }
    }

    fn insert(&mut self, peer: Arc<Peer>) {
        match (peer.address(), worker_index(peer.address())) {
            (_, Some(index)) => {
                self.workers.resize(self.workers.len().max(index + 1), None);
                if let Some(place) = self.workers.get_mut(index) {
                    *place = Some(peer);
                }
            }
            (address, None) => {
                self.others.insert(address.clone(), peer);
            }
        }
    }

    fn retain(&mut self, keep: impl Fn(&Address) -> bool) {
        for place in &mut self.workers {
            place.take_if(|peer| !keep(peer.address()));
        }
        self.others.retain(|address, _| keep(address));
    }

    fn all(&self) -> impl Iterator<Item = &Arc<Peer>> {
        self.workers.iter().flatten().chain(self.others.values())
    }
}

/// The place of a worker; none for numbers no group can have, which would make the list of places long.
fn worker_index(address: &Address) -> Option<usize> {
    match address {
        Address::Worker(id) if *id < WORKERS_MAX => usize::try_from(*id).ok(),
        _ => None,
    }
}
