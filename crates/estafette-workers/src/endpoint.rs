//! A participant's end of everything: its identity, its listeners, the ways to its peers, and its tasks.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicUsize},
};

use tokio::{sync::watch, task::JoinSet};

use crate::{
    Address, counters::Counters, directory::Directory, inbound::Callers, listener::Listeners,
    local::LocalLink, members::Members, peer::Peer, settings::Limits,
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
    peers: Mutex<HashMap<Address, Arc<Peer>>>,
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
            peers: Mutex::default(),
            tasks: Mutex::default(),
        });
        let own = Arc::new(LocalLink::new(endpoint.address.clone(), &endpoint.limits));
        endpoint.spawn(Arc::clone(&own).run(Arc::clone(&endpoint)));
        let peer = Arc::new(Peer::with_link(endpoint.address.clone(), own));
        endpoint.lock_peers().insert(endpoint.address.clone(), peer);
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
        let mut peers = self.lock_peers();
        if let Some(peer) = peers.get(address) {
            return Arc::clone(peer);
        }
        let peer = Arc::new(Peer::new(address.clone()));
        peers.insert(address.clone(), Arc::clone(&peer));
        peer
    }

    /// Takes the supervisor's word for who belongs to the group, and forgets the peers that no longer do.
    pub(crate) fn set_members(&self, members: Members) {
        if members.version < self.members.borrow().version {
            return;
        }
        self.lock_peers()
            .retain(|address, _| *address == self.address || members.presence(address).is_some());
        self.members.send_replace(members);
    }

    /// Writes what waits for peers, ends all tasks and with them all connections.
    pub(crate) async fn close(&self) {
        let peers: Vec<_> = self.lock_peers().values().cloned().collect();
        let finishing = peers.iter().filter_map(|peer| peer.link()).map(|link| async move {
            link.finish(self).await;
        });
        futures_util::future::join_all(finishing).await;
        let mut tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        tasks.shutdown().await;
        // Listeners hold handles of the endpoint: taken apart here, or it would keep itself alive.
        self.listeners.clear();
    }

    fn lock_peers(&self) -> MutexGuard<'_, HashMap<Address, Arc<Peer>>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
