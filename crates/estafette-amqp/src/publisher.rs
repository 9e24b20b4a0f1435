//! Publishing: from messages to confirmed publications.

use std::{borrow::Cow, sync::Arc, time::Duration};

use estafette_core::{Destination, Error, ErrorKind, Outgoing, Receipt, Result, Routing};
use tokio::{sync::Mutex, time::Instant};

use crate::{
    config::AmqpConfig,
    confirms::{Fate, Window},
    connector::Connector,
    error,
    link::Channel,
    names::{self, Waiting},
    protocol::request,
    publication::{Publication, What},
    topology::Topology,
};

/// The first pause before publishing again what was lost.
const PAUSE: Duration = Duration::from_millis(20);

/// For how long what the broker refused is published again: a quorum queue that is being made, or elects a leader, refuses
/// for a moment, and does not say how that differs from being full.
const REFUSED_FOR: Duration = Duration::from_secs(1);

/// Publishes with confirmation on a channel of its own.
pub(crate) struct Publisher {
    config: Arc<AmqpConfig>,
    connector: Arc<Connector>,
    topology: Arc<Topology>,
    confirming: Mutex<Option<Arc<Confirming>>>,
}

/// A channel whose publications are confirmed.
struct Confirming {
    channel: Channel,
    window: Arc<Window>,
}

impl Publisher {
    pub(crate) fn new(config: Arc<AmqpConfig>, connector: Arc<Connector>, topology: Arc<Topology>) -> Self {
        Self { config, connector, topology, confirming: Mutex::default() }
    }

    /// Publishes a batch: one result for each message, in order.
    pub(crate) async fn publish(&self, batch: &[Outgoing]) -> Vec<Result<Receipt>> {
        let mut results: Vec<Option<Result<Receipt>>> = vec![None; batch.len()];
        let mut publications = Vec::with_capacity(batch.len());
        let mut places = Vec::with_capacity(batch.len());
        for (place, (outgoing, result)) in batch.iter().zip(&mut results).enumerate() {
            match self.publication(outgoing).await {
                Ok(publication) => {
                    publications.push(publication);
                    places.push(place);
                }
                Err(error) => *result = Some(Err(error)),
            }
        }
        let fates = self.confirmed(&publications).await;
        let mut again = Vec::new();
        for (place, fate) in places.into_iter().zip(fates) {
            let (Some(outgoing), Some(result)) = (batch.get(place), results.get_mut(place)) else { continue };
            *result = Some(self.receipt(outgoing, fate));
            if let (Destination::Queue(_), Some(Ok(Receipt { routing: Routing::Unrouted, .. }))) =
                (&outgoing.destination, &*result)
            {
                again.push(place);
            }
        }
        for place in again {
            if let (Some(outgoing), Some(result)) = (batch.get(place), results.get_mut(place)) {
                *result = Some(self.send_to_new_queue(outgoing).await);
            }
        }
        results.into_iter().map(|result| result.unwrap_or_else(|| Err(ErrorKind::Engine.into()))).collect()
    }

    /// Publishes to a queue that did not exist, which makes it.
    async fn send_to_new_queue(&self, outgoing: &Outgoing) -> Result<Receipt> {
        if let Destination::Queue(queue) = &outgoing.destination {
            // Or it was a queue for waiting that is gone.
            self.topology.forget();
            self.topology.exists_or_declare(queue).await?;
        }
        let publication = self.publication(outgoing).await?;
        let fate = self.confirmed(&[publication]).await.pop();
        self.receipt(outgoing, fate.unwrap_or_else(|| Err(ErrorKind::Engine.into())))
    }

    fn receipt(&self, outgoing: &Outgoing, fate: Result<Fate>) -> Result<Receipt> {
        let routing = match fate? {
            Fate::Stored => Routing::Routed,
            Fate::Returned if outgoing.require_queue => {
                return Err(match &outgoing.destination {
                    Destination::Topic => error::unroutable(&outgoing.envelope.topic),
                    Destination::Queue(queue) => error::no_such_queue(queue),
                });
            }
            Fate::Returned => Routing::Unrouted,
            Fate::Refused => return Err(error::refused_by_broker()),
            Fate::Lost(error) => return Err(error),
        };
        Ok(Receipt { id: outgoing.envelope.id.clone(), routing })
    }

    /// Where a message goes, after making sure that this is there.
    async fn publication<'a>(&'a self, outgoing: &'a Outgoing) -> Result<Publication<'a>> {
        let envelope = &*outgoing.envelope;
        if envelope.body.len() > self.config.body_bytes_max {
            return Err(error::too_large(envelope.body.len(), self.config.body_bytes_max));
        }
        let delay = outgoing.delay;
        let (exchange, key) = match &outgoing.destination {
            Destination::Queue(queue) if delay.is_zero() => ("".into(), queue.as_str().into()),
            Destination::Queue(queue) => {
                if outgoing.require_queue && !self.topology.exists(queue).await? {
                    return Err(error::no_such_queue(queue));
                }
                self.topology.exists_or_declare(queue).await?;
                let millis = names::delay_millis(delay);
                let waiting = self.topology.waiting(queue, Waiting::Delay, millis).await?;
                ("".into(), Cow::Owned(waiting))
            }
            Destination::Topic => {
                let exchange = self.config.exchange_of(&envelope.topic);
                self.topology.exchange(exchange).await?;
                let key = self.config.routing_key(envelope.topic.as_str());
                if delay.is_zero() {
                    (exchange.into(), key)
                } else {
                    let millis = names::delay_millis(delay);
                    (Cow::Owned(self.topology.waiting_to_publish(exchange, millis).await?), key)
                }
            }
        };
        let what = What::New { envelope, compat: self.config.compat, expires: delay.is_zero() };
        Ok(Publication { exchange, key, what })
    }

    /// Publishes until each publication has a fate, or patience ends. What a broken connection left open is published again:
    /// then it may be there twice.
    pub(crate) async fn confirmed(&self, items: &[Publication<'_>]) -> Vec<Result<Fate>> {
        let deadline = Instant::now() + self.config.patience;
        if items.is_empty() {
            return Vec::new();
        }
        let mut fates = self.pass(items, deadline).await;
        let mut pause = PAUSE;
        let refused_until = Instant::now() + REFUSED_FOR;
        loop {
            let refuses_for_good = Instant::now() >= refused_until;
            let lost: Vec<usize> = fates
                .iter()
                .enumerate()
                .filter(|(_, fate)| match fate {
                    Ok(Fate::Lost(error)) => may_pass(error),
                    Ok(Fate::Refused) => !refuses_for_good,
                    _ => false,
                })
                .map(|(index, _)| index)
                .collect();
            if lost.is_empty() || Instant::now() + pause >= deadline || self.connector.is_closed() {
                return fates;
            }
            // An exchange or a queue for waiting may have been deleted.
            self.topology.forget();
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(1));
            for index in lost {
                // One by one: a publication the broker closes the channel for must not take others with it.
                if let (Some(item), Some(fate)) = (items.get(index..=index), fates.get_mut(index)) {
                    self.make_exchange(item).await;
                    if let Some(again) = self.pass(item, deadline).await.pop() {
                        *fate = again;
                    }
                }
            }
        }
    }

    /// Makes the exchange of a publication again. When that fails, publishing says so.
    async fn make_exchange(&self, items: &[Publication<'_>]) {
        for item in
            items.iter().filter(|item| !item.exchange.is_empty() && !names::is_waiting(&item.exchange))
        {
            if let Err(error) = self.topology.exchange(&item.exchange).await {
                tracing::debug!(error = error.report(), "the exchange cannot be declared");
            }
        }
    }

    /// Publishes once.
    async fn pass(&self, items: &[Publication<'_>], deadline: Instant) -> Vec<Result<Fate>> {
        let confirming = match self.confirming(deadline).await {
            Ok(confirming) => confirming,
            Err(error) => return vec![Err(error); items.len()],
        };
        let fates = confirming.window.publish(&confirming.channel, items, deadline).await;
        let unknown = || Err(error::unconfirmed(self.config.patience));
        fates.into_iter().map(|fate| fate.map_or_else(unknown, Ok)).collect()
    }

    async fn confirming(&self, deadline: Instant) -> Result<Arc<Confirming>> {
        let mut current = self.confirming.lock().await;
        if current.as_ref().is_none_or(|confirming| !confirming.channel.is_open()) {
            *current = None;
            *current = Some(Arc::new(self.open(deadline).await?));
        }
        let confirming = current.as_ref().map(Arc::clone).ok_or_else(error::closed)?;
        drop(current);
        let link = confirming.channel.link();
        if link.is_blocked() && tokio::time::timeout_at(deadline, link.unblocked()).await.is_err() {
            return Err(error::blocked(self.config.patience));
        }
        Ok(confirming)
    }

    async fn open(&self, deadline: Instant) -> Result<Confirming> {
        loop {
            let link = self.connector.link(deadline).await?;
            let window = Arc::new(Window::new(self.config.window));
            let opened = async {
                let channel = link.channel(Arc::clone(&window) as _).await?;
                channel.call(request::confirm_select).await?;
                Ok::<_, Error>(channel)
            };
            match opened.await {
                Ok(channel) => return Ok(Confirming { channel, window }),
                Err(error) if error.kind() == ErrorKind::Unavailable && Instant::now() < deadline => {}
                Err(error) => return Err(error),
            }
        }
    }

    pub(crate) async fn close(&self) {
        drop(self.confirming.lock().await.take());
    }
}

/// Whether publishing again may succeed: the channel broke, perhaps for another publication's sake or for an object that is
/// made again.
fn may_pass(error: &Error) -> bool {
    error.is_retryable() || error.kind() == ErrorKind::NotFound
}
