//! The channels of one core, and which cores have subscribers of which channel.

use std::{
    cell::RefCell,
    collections::HashMap,
    rc::Rc,
    sync::{Arc, Mutex, PoisonError},
};

use indexmap::IndexMap;
use rustc_hash::FxBuildHasher;

use super::connection::Connection;
use crate::stats::Counters;

/// How many subscribers each channel has on each core.
///
/// Read when a script publishes, so that cores without subscribers are left alone; changed when one subscribes. In
/// parts, so that two cores seldom meet at one lock.
#[derive(Debug)]
pub(crate) struct Interest {
    parts: Vec<Mutex<HashMap<Arc<str>, Vec<u64>>>>,
    cores: usize,
}

const PARTS: usize = 64;

impl Interest {
    pub(crate) fn new(cores: usize) -> Self {
        Self { parts: (0..PARTS).map(|_| Mutex::default()).collect(), cores }
    }

    fn with<T>(&self, channel: &str, work: impl FnOnce(&mut HashMap<Arc<str>, Vec<u64>>) -> T) -> Option<T> {
        use std::hash::BuildHasher as _;
        let hash = usize::try_from(FxBuildHasher.hash_one(channel) >> 32).unwrap_or(0);
        let part = self.parts.get(hash % PARTS)?;
        Some(work(&mut part.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    fn set(&self, channel: &Arc<str>, core: usize, count: u64) {
        self.with(channel, |part| {
            let counts = part.entry(Arc::clone(channel)).or_insert_with(|| vec![0; self.cores]);
            if let Some(place) = counts.get_mut(core) {
                *place = count;
            }
            if counts.iter().all(|count| *count == 0) {
                part.remove(channel);
            }
        });
    }

    fn elsewhere(&self, channel: &str, core: usize) -> Vec<(usize, u64)> {
        self.with(channel, |part| {
            let counts = part.get(channel).map(Vec::as_slice).unwrap_or_default().iter().copied().enumerate();
            counts.filter(|(other, count)| *other != core && *count > 0).collect()
        })
        .unwrap_or_default()
    }
}

/// In the order in which they joined, until one leaves and the last takes its place.
type Members = IndexMap<u64, Rc<Connection>, FxBuildHasher>;

#[derive(Debug)]
pub(crate) struct Channels {
    core: usize,
    members: RefCell<HashMap<Arc<str>, Rc<RefCell<Members>>>>,
    interest: Arc<Interest>,
    counters: Arc<Counters>,
}

impl Channels {
    pub(crate) fn new(core: u8, interest: Arc<Interest>, counters: Arc<Counters>) -> Self {
        Self { core: usize::from(core), members: RefCell::default(), interest, counters }
    }

    /// Joins all of `names` or none; a channel joined already stays joined.
    ///
    /// # Errors
    /// A sentence, when a name or their number is not allowed.
    pub(crate) fn subscribe(
        &self,
        connection: &Rc<Connection>,
        names: &[String],
    ) -> Result<(), &'static str> {
        let limits = &connection.server.settings.limits;
        if names.iter().any(|name| name.is_empty() || name.len() > limits.channel_name_max) {
            return Err("the channel's name is empty or too long");
        }
        if names.iter().any(|name| name.chars().any(char::is_control)) {
            return Err("the channel's name has a control character");
        }
        let mut joined = connection.channels.borrow_mut();
        let mut new: Vec<&String> =
            names.iter().filter(|name| !joined.iter().any(|old| **old == ***name)).collect();
        new.sort_unstable();
        new.dedup();
        if joined.len() + new.len() > limits.channels_max {
            return Err("the connection is subscribed to too many channels");
        }
        for name in new {
            joined.push(self.join(name, connection));
        }
        Ok(())
    }

    fn join(&self, name: &str, connection: &Rc<Connection>) -> Arc<str> {
        let mut channels = self.members.borrow_mut();
        let name = channels.get_key_value(name).map_or_else(|| Arc::from(name), |(name, _)| Arc::clone(name));
        let members = channels.entry(Arc::clone(&name)).or_insert_with(|| {
            Counters::add(&self.counters.channels, 1);
            Rc::default()
        });
        let mut members = members.borrow_mut();
        members.insert(connection.id.sequence(), Rc::clone(connection));
        Counters::add(&self.counters.subscriptions, 1);
        self.interest.set(&name, self.core, members.len() as u64);
        name
    }

    /// Leaves `names`; those not joined make no difference.
    pub(crate) fn unsubscribe(&self, connection: &Rc<Connection>, names: &[String]) {
        let mut joined = connection.channels.borrow_mut();
        joined.retain(|channel| {
            let stays = !names.iter().any(|name| **name == **channel);
            if !stays {
                self.leave(channel, connection);
            }
            stays
        });
    }

    pub(crate) fn leave_all(&self, connection: &Rc<Connection>) {
        for channel in std::mem::take(&mut *connection.channels.borrow_mut()) {
            self.leave(&channel, connection);
        }
    }

    fn leave(&self, channel: &Arc<str>, connection: &Rc<Connection>) {
        let mut channels = self.members.borrow_mut();
        let Some(members) = channels.get(channel).map(Rc::clone) else { return };
        let mut members = members.borrow_mut();
        if members.swap_remove(&connection.id.sequence()).is_some() {
            Counters::subtract(&self.counters.subscriptions, 1);
        }
        self.interest.set(channel, self.core, members.len() as u64);
        if members.is_empty() && channels.remove(channel).is_some() {
            Counters::subtract(&self.counters.channels, 1);
        }
    }

    /// Calls `work` for every member. It may change the channel; who joins or leaves meanwhile may be missed.
    pub(crate) fn for_each(&self, channel: &str, mut work: impl FnMut(&Rc<Connection>)) {
        let Some(members) = self.members.borrow().get(channel).map(Rc::clone) else { return };
        let mut place = 0;
        loop {
            let member = members.borrow().get_index(place).map(|(_, member)| Rc::clone(member));
            let Some(member) = member else { return };
            work(&member);
            place += 1;
        }
    }

    /// The other cores that have subscribers, and how many.
    pub(crate) fn elsewhere(&self, channel: &str) -> Vec<(usize, u64)> {
        self.interest.elsewhere(channel, self.core)
    }
}
