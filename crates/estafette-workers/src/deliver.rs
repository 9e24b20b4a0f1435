//! Sending and asking: from whom a message is for to the links that carry it.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use estafette_core::{Error, ErrorKind, Result};
use futures_util::future::join_all;
use tokio::time::Instant;

use crate::{
    Address, Presence, To,
    endpoint::Endpoint,
    error::{describe, invalid},
    frame::Body,
    pipe::Put,
    wire::Parcel,
};

impl Endpoint {
    /// Hands `parcel` to everybody it is for; how many it was handed to.
    pub(crate) async fn send(self: &Arc<Self>, parcel: &Parcel, to: To<'_>) -> Result<usize> {
        if let Some(address) = self.single(to)? {
            // So that one who sends without end lets others work.
            tokio::task::consume_budget().await;
            if !self.hand_over_now(&address, parcel)? {
                self.hand_over(&address, parcel, self.deadline()).await?;
            }
            return Ok(1);
        }
        tokio::task::consume_budget().await;
        let addresses = self.several(to)?;
        let mut handed = 0;
        let mut slow = Vec::new();
        for address in &addresses {
            match self.hand_over_now(address, parcel) {
                Ok(true) => handed += 1,
                Ok(false) | Err(_) => slow.push(address),
            }
        }
        if slow.is_empty() {
            return Ok(handed);
        }
        let deadline = self.deadline();
        let outcomes =
            join_all(slow.into_iter().map(|address| self.hand_over(address, parcel, deadline))).await;
        let mut failed = None;
        for outcome in outcomes {
            match outcome {
                Ok(()) => handed += 1,
                Err(error) => {
                    tracing::debug!(error = %error.report(), "one of several did not get a message");
                    failed = Some(error);
                }
            }
        }
        match failed {
            Some(error) if handed == 0 => Err(error),
            _ => Ok(handed),
        }
    }

    /// Asks one participant and waits for its reply.
    pub(crate) async fn request(
        self: &Arc<Self>,
        parcel: &Parcel,
        to: To<'_>,
        wait_max: Duration,
    ) -> Result<Body> {
        match self.single(to)? {
            Some(address) => self.ask(&address, parcel, wait_max).await,
            None => Err(invalid("a request is for one participant; ask several with request_all")),
        }
    }

    /// Asks everybody it is for at once; every outcome, in the order of the addresses.
    pub(crate) async fn request_all(
        self: &Arc<Self>,
        parcel: &Parcel,
        to: To<'_>,
        wait_max: Duration,
    ) -> Result<Vec<(Address, Result<Body>)>> {
        let addresses = match self.single(to)? {
            Some(address) => vec![address],
            None => self.several(to)?,
        };
        let asked = addresses.into_iter().map(|address| async move {
            let outcome = self.ask(&address, parcel, wait_max).await;
            (address, outcome)
        });
        Ok(join_all(asked).await)
    }

    async fn ask(self: &Arc<Self>, address: &Address, parcel: &Parcel, wait_max: Duration) -> Result<Body> {
        let deadline = Instant::now() + wait_max;
        match tokio::time::timeout_at(deadline, self.ask_until(address, parcel, deadline)).await {
            Ok(outcome) => outcome,
            Err(_elapsed) => {
                let sentence = format!("no reply from {} within {wait_max:?}", describe(address));
                Err(Error::new(ErrorKind::TimedOut, sentence))
            }
        }
    }

    async fn ask_until(
        self: &Arc<Self>,
        address: &Address,
        parcel: &Parcel,
        deadline: Instant,
    ) -> Result<Body> {
        let peer = self.peer(address);
        loop {
            let link = match peer.link() {
                Some(link) if !link.is_closed() => link,
                _ => peer.connect(self, deadline).await?,
            };
            let ticket = link.pending().register()?;
            match link.put(Some(ticket.id()), parcel)? {
                Put::Taken => {
                    self.counters.messages_out.count();
                    return ticket.reply().await;
                }
                Put::NoRoom => link.room().await,
                Put::Closed => tokio::task::yield_now().await,
            }
        }
    }

    /// Hands `parcel` over when the peer is connected and has room; whether it did.
    fn hand_over_now(&self, address: &Address, parcel: &Parcel) -> Result<bool> {
        let taken =
            self.with_peer(address, |peer| peer.put(parcel)).unwrap_or(Ok(Put::Closed))? == Put::Taken;
        if taken {
            self.counters.messages_out.count();
        }
        Ok(taken)
    }

    /// Hands `parcel` over as soon as the peer is connected and has room, until `deadline`.
    async fn hand_over(
        self: &Arc<Self>,
        address: &Address,
        parcel: &Parcel,
        deadline: Instant,
    ) -> Result<()> {
        let peer = self.peer(address);
        loop {
            let link = peer.connect(self, deadline).await?;
            match link.put(None, parcel)? {
                Put::Taken => {
                    self.counters.messages_out.count();
                    return Ok(());
                }
                Put::Closed => tokio::task::yield_now().await,
                Put::NoRoom => {
                    if tokio::time::timeout_at(deadline, link.room()).await.is_err() {
                        return Err(self.takes_nothing(address));
                    }
                }
            }
        }
    }

    fn takes_nothing(&self, address: &Address) -> Error {
        let (who, wait_max) = (describe(address), self.limits.send_wait_max);
        let sentence = format!("{who} takes no messages: its queue was full for {wait_max:?}");
        Error::new(ErrorKind::Unavailable, sentence)
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.limits.send_wait_max
    }

    /// The one participant a message is for; `None` when it is for several.
    fn single(&self, to: To<'_>) -> Result<Option<Address>> {
        Ok(match to {
            To::One(id) => Some(Address::Worker(id)),
            To::Process(name) => match name.parse()? {
                address @ Address::Process(_) => Some(address),
                other => return Err(invalid(format!("{other} is no name of a process"))),
            },
            To::Supervisor => Some(Address::Supervisor),
            To::Any => Some(self.any()?),
            To::All | To::Others | To::Many(_) => None,
        })
    }

    /// The workers a message is for. Those that died and wait for their next start are left out, unless named.
    fn several(&self, to: To<'_>) -> Result<Vec<Address>> {
        if let To::Many(ids) = to {
            let mut seen = std::collections::HashSet::with_capacity(ids.len());
            if let Some(id) = ids.iter().find(|id| !seen.insert(**id)) {
                return Err(invalid(format!("worker {id} is named twice")));
            }
            return Ok(ids.iter().copied().map(Address::Worker).collect());
        }
        let members = self.members.borrow();
        let workers = (0..members.count()).map(Address::Worker);
        let wanted = workers.filter(|address| {
            members.presence(address) != Some(Presence::Down) && (to == To::All || *address != self.address)
        });
        Ok(wanted.collect())
    }

    /// The worker whose turn it is: one that runs rather than one that starts, another rather than oneself.
    fn any(&self) -> Result<Address> {
        let members = self.members.borrow();
        let count = members.count();
        let turn = u32::try_from(self.turn.fetch_add(1, Ordering::Relaxed) % (1 << 31)).unwrap_or_default();
        let in_turn = |wanted: fn(Presence) -> bool| {
            (0..count)
                .map(|step| Address::Worker((turn % count + step) % count))
                .find(|address| *address != self.address && members.presence(address).is_some_and(wanted))
        };
        let found = in_turn(|presence| presence == Presence::Up).or_else(|| in_turn(|_any| true));
        match (found, &self.address) {
            (Some(address), _) => Ok(address),
            (None, own @ Address::Worker(_)) => Ok(own.clone()),
            (None, _) => Err(Error::new(ErrorKind::NotFound, "the group has no workers")),
        }
    }
}
