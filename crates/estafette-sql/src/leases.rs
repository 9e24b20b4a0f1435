//! The deliveries a receiver has out, and where their leases stand.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use estafette_core::Ticket;
use tokio::sync::Notify;

/// A lease, as a store finds it again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lease {
    /// Which message: the ticket's key.
    pub(crate) key: u64,
    /// When it ends, in microseconds since 1970.
    end: i64,
    /// When it ended before it was extended the last time: it still does if that transaction failed.
    end_before: Option<i64>,
}

impl Lease {
    /// The ends it may have, the likelier first.
    pub(crate) fn ends(&self) -> impl Iterator<Item = i64> + use<> {
        [Some(self.end), self.end_before].into_iter().flatten()
    }

    /// Whether it stands where `other` does, so many keys further.
    pub(crate) fn follows(&self, other: &Self, offset: u64) -> bool {
        *self == Self { key: other.key.saturating_add(offset), ..other.clone() }
    }
}

/// Every lease of a receiver.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    out: Mutex<HashMap<Ticket, Lease>>,
    /// A delivery was settled: there may be room for another.
    pub(crate) freed: Notify,
}

impl Leases {
    /// Adds one that was just claimed.
    pub(crate) fn add(&self, ticket: Ticket) {
        let end = i64::try_from(ticket.fence).unwrap_or(i64::MAX);
        let lease = Lease { key: ticket.key, end, end_before: None };
        self.lock().insert(ticket, lease);
    }

    /// How many are out.
    pub(crate) fn count(&self) -> usize {
        self.lock().len()
    }

    /// Takes leases that are about to be settled; none for those that are not out.
    pub(crate) fn take<'t>(&self, tickets: impl Iterator<Item = &'t Ticket>) -> Vec<Option<Lease>> {
        let mut out = self.lock();
        let taken = tickets.map(|ticket| out.remove(ticket)).collect();
        drop(out);
        self.freed.notify_one();
        taken
    }

    /// Takes all that are out.
    pub(crate) fn take_all(&self) -> Vec<Lease> {
        self.lock().drain().map(|(_, lease)| lease).collect()
    }

    /// The leases of these tickets as they stand.
    pub(crate) fn find(&self, tickets: &[Ticket]) -> Vec<Option<Lease>> {
        let out = self.lock();
        tickets.iter().map(|ticket| out.get(ticket).cloned()).collect()
    }

    /// Notes that a lease which ended at `before` ends at `end` now, unless its transaction fails.
    pub(crate) fn extended(&self, ticket: Ticket, before: i64, end: i64) {
        if let Some(lease) = self.lock().get_mut(&ticket) {
            *lease = Lease { key: lease.key, end, end_before: Some(before) };
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Ticket, Lease>> {
        self.out.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_extended_lease_has_two_ends_until_it_is_extended_again() {
        let leases = Leases::default();
        let ticket = Ticket { key: 1, fence: 10 };
        leases.add(ticket);
        leases.extended(ticket, 10, 20);
        leases.extended(ticket, 20, 30);
        let lease = leases.find(&[ticket]).pop().flatten().unwrap();
        assert_eq!(lease.ends().collect::<Vec<_>>(), [30, 20]);
        assert_eq!(leases.take([ticket].iter()), [Some(lease)]);
        assert_eq!(leases.count(), 0);
    }
}
