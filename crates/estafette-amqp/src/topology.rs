//! Exchanges, queues and bindings: what is there, and making what is missing.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use estafette_core::{Error, ErrorKind, Lifetime, Pattern, QueueName, QueueSpec, Result};
use tokio::time::Instant;

use crate::{
    config::{AmqpConfig, Argument, Compat, Declaring, Exchanges, QueueType},
    desk::Desk,
    names::{self, CATCH_ALL, Waiting},
    protocol::{
        fields::{put_bool_field, put_i64_field, put_text_field},
        request::{self, DeclareExchange, DeclareQueue},
    },
};

/// How long a queue for waiting is taken to be there without declaring it again. It is deleted by the broker when nobody
/// declared it for longer than its messages wait and twice this.
const WAITING_QUEUE_KNOWN: Duration = Duration::from_secs(300);

/// How long a note about attempts is kept: a message that was returned longer ago counts as returned once.
const NOTES_KEPT: Duration = Duration::from_secs(86_400);

/// How many notes are kept for a queue.
const NOTES_MAX: i64 = 10_000;

/// What this process knows of the broker's objects, and how it makes them.
pub(crate) struct Topology {
    config: Arc<AmqpConfig>,
    desk: Arc<Desk>,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    exchanges: BTreeSet<String>,
    /// What was declared through this handle.
    queues: BTreeMap<QueueName, QueueSpec>,
    /// Queues (and exchanges) for waiting, by name, and when they were declared.
    waiting: HashMap<String, Instant>,
    /// Those of a queue, by why and how long.
    waiting_of: BTreeMap<QueueName, BTreeSet<(bool, u64)>>,
}

impl Topology {
    pub(crate) fn new(config: Arc<AmqpConfig>, desk: Arc<Desk>) -> Self {
        Self { config, desk, known: Mutex::default() }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets which exchanges and waiting queues are there, so that they are declared again.
    pub(crate) fn forget(&self) {
        let mut known = self.known();
        known.exchanges.clear();
        known.waiting.clear();
    }

    /// What was declared through this handle.
    pub(crate) fn specs(&self) -> Vec<QueueSpec> {
        self.known().queues.values().cloned().collect()
    }

    pub(crate) fn spec(&self, queue: &QueueName) -> Option<QueueSpec> {
        self.known().queues.get(queue).cloned()
    }

    /// Makes sure that a queue and its bindings are there.
    pub(crate) async fn declare(&self, spec: &QueueSpec) -> Result<()> {
        self.check(spec)?;
        self.declare_queue(&spec.name, spec.lifetime).await?;
        for pattern in &spec.patterns {
            let exchange = self.config.exchange_for(pattern);
            self.exchange(exchange).await?;
            let key = self.config.routing_key(pattern.as_str());
            self.desk
                .call(|out, id| request::queue_bind(out, id, spec.name.as_str(), exchange, &key))
                .await?;
        }
        let mut known = self.known();
        let merged = known
            .queues
            .entry(spec.name.clone())
            .or_insert_with(|| QueueSpec { patterns: Vec::new(), ..spec.clone() });
        for pattern in &spec.patterns {
            if !merged.patterns.contains(pattern) {
                merged.patterns.push(pattern.clone());
            }
        }
        Ok(())
    }

    /// Refuses patterns that the exchange's type cannot match.
    fn check(&self, spec: &QueueSpec) -> Result<()> {
        let Exchanges::One { name, kind } = &self.config.exchanges else { return Ok(()) };
        let wild = spec.patterns.iter().find(|pattern| !pattern.is_literal());
        match (kind.as_str(), wild) {
            ("direct", Some(pattern)) => {
                let sentence =
                    format!("exchange {name} is direct: it has no wildcards, and {pattern} has one");
                Err(Error::new(ErrorKind::Unsupported, sentence))
            }
            _ => Ok(()),
        }
    }

    pub(crate) async fn exists(&self, queue: &QueueName) -> Result<bool> {
        Ok(self.desk.look(queue.as_str()).await?.is_some())
    }

    /// Makes a durable queue unless there is one of that name, whatever its settings.
    pub(crate) async fn exists_or_declare(&self, queue: &QueueName) -> Result<()> {
        if self.known().queues.contains_key(queue) || self.desk.look(queue.as_str()).await?.is_some() {
            return Ok(());
        }
        self.declare_queue(queue, Lifetime::Durable).await
    }

    /// Makes sure that there is a place for a queue's dead letters.
    pub(crate) async fn declare_dead(&self, queue: &QueueName) -> Result<()> {
        self.declare_plain(&names::dead(queue.as_str()), &self.dead_arguments()).await
    }

    /// Makes sure that there is a place for notes about a queue's attempts.
    pub(crate) async fn declare_notes(&self, queue: &QueueName) -> Result<String> {
        let name = names::notes(queue.as_str());
        if !self.is_waiting_known(&name) {
            let mut arguments = Vec::new();
            put_text_field(&mut arguments, "x-queue-type", "classic");
            put_i64_field(&mut arguments, "x-message-ttl", millis(NOTES_KEPT));
            put_i64_field(&mut arguments, "x-max-length", NOTES_MAX);
            put_i64_field(&mut arguments, "x-expires", millis(2 * NOTES_KEPT));
            self.declare_plain(&name, &arguments).await?;
            self.known().waiting.insert(name.clone(), Instant::now());
        }
        Ok(name)
    }

    /// Makes sure that a queue is there, and its dead letters' when it is durable.
    pub(crate) async fn declare_queue(&self, queue: &QueueName, lifetime: Lifetime) -> Result<()> {
        let name = queue.as_str();
        if self.config.declaring == Declaring::Passive {
            self.desk.must_exist(queue).await?;
            return Ok(());
        }
        if lifetime == Lifetime::Durable {
            self.declare_plain(&names::dead(name), &self.dead_arguments()).await?;
        }
        if lifetime == Lifetime::Durable {
            return self.declare_plain(name, &self.arguments(name)).await;
        }
        let arguments = self.temporary_arguments();
        // Durable all the same: RabbitMQ is about to refuse other queues that several connections use.
        let queue =
            DeclareQueue { name, passive: false, durable: true, auto_delete: true, arguments: &arguments };
        self.desk.call(|out, id| request::queue_declare(out, id, &queue)).await.map(drop)
    }

    async fn declare_plain(&self, name: &str, arguments: &[u8]) -> Result<()> {
        let queue = DeclareQueue { name, passive: false, durable: true, auto_delete: false, arguments };
        self.desk.call(|out, id| request::queue_declare(out, id, &queue)).await.map(drop)
    }

    /// The arguments of a durable queue.
    fn arguments(&self, name: &str) -> Vec<u8> {
        let mut arguments = Vec::new();
        let given = |wanted: &str| self.config.queue_arguments.iter().any(|(name, _)| name == wanted);
        if self.config.compat == Compat::None {
            if !given("x-dead-letter-exchange") {
                put_text_field(&mut arguments, "x-dead-letter-exchange", "");
                put_text_field(&mut arguments, "x-dead-letter-routing-key", &names::dead(name));
            }
            self.put_type(&mut arguments);
        }
        for (name, value) in &self.config.queue_arguments {
            match value {
                Argument::Int(number) => put_i64_field(&mut arguments, name, *number),
                Argument::Bool(truth) => put_bool_field(&mut arguments, name, *truth),
                Argument::Text(text) => put_text_field(&mut arguments, name, text),
            }
        }
        arguments
    }

    fn put_type(&self, arguments: &mut Vec<u8>) {
        if self.config.queue_type == QueueType::Quorum {
            put_text_field(arguments, "x-queue-type", "quorum");
        }
    }

    fn dead_arguments(&self) -> Vec<u8> {
        let mut arguments = Vec::new();
        self.put_type(&mut arguments);
        arguments
    }

    /// A temporary queue goes away with its consumer, or after a while when it never had one.
    fn temporary_arguments(&self) -> Vec<u8> {
        let mut arguments = Vec::new();
        put_i64_field(&mut arguments, "x-expires", millis(self.config.temporary_expires));
        arguments
    }

    /// Makes sure that an exchange is there, and feeds the one that catches all.
    pub(crate) async fn exchange(&self, name: &str) -> Result<()> {
        if self.known().exchanges.contains(name) {
            return Ok(());
        }
        let passive = self.config.declaring == Declaring::Passive && name != CATCH_ALL;
        let kind = if name == CATCH_ALL { "topic" } else { self.config.exchange_kind() };
        let exchange = DeclareExchange { name, kind, passive, durable: true, arguments: &[] };
        self.desk.call(|out, id| request::exchange_declare(out, id, &exchange)).await?;
        if self.config.exchanges == Exchanges::FirstWord && !passive && name != CATCH_ALL {
            Box::pin(self.exchange(CATCH_ALL)).await?;
            self.desk.call(|out, id| request::exchange_bind(out, id, CATCH_ALL, name, "#")).await?;
        }
        self.known().exchanges.insert(name.to_owned());
        Ok(())
    }

    /// Makes sure that there is a queue where messages for `queue` wait for so many milliseconds; returns its name.
    pub(crate) async fn waiting(&self, queue: &QueueName, why: Waiting, millis: u64) -> Result<String> {
        let name = names::waiting(queue.as_str(), why, millis);
        if !self.is_waiting_known(&name) {
            let mut arguments = waiting_arguments(millis);
            put_text_field(&mut arguments, "x-dead-letter-exchange", "");
            put_text_field(&mut arguments, "x-dead-letter-routing-key", queue.as_str());
            self.declare_plain(&name, &arguments).await?;
            let mut known = self.known();
            known.waiting.insert(name.clone(), Instant::now());
            known.waiting_of.entry(queue.clone()).or_default().insert((why == Waiting::Retry, millis));
        }
        Ok(name)
    }

    /// Makes sure that there is an exchange through which messages wait so long before they are published to `exchange`.
    pub(crate) async fn waiting_to_publish(&self, exchange: &str, millis: u64) -> Result<String> {
        let name = names::waiting_to_publish(exchange, millis);
        if !self.is_waiting_known(&name) {
            let mut arguments = waiting_arguments(millis);
            put_text_field(&mut arguments, "x-dead-letter-exchange", exchange);
            self.declare_plain(&name, &arguments).await?;
            let fanout = DeclareExchange {
                name: &name,
                kind: "fanout",
                passive: false,
                durable: true,
                arguments: &[],
            };
            self.desk.call(|out, id| request::exchange_declare(out, id, &fanout)).await?;
            self.desk.call(|out, id| request::queue_bind(out, id, &name, &name, "")).await?;
            self.known().waiting.insert(name.clone(), Instant::now());
        }
        Ok(name)
    }

    fn is_waiting_known(&self, name: &str) -> bool {
        self.known().waiting.get(name).is_some_and(|at| at.elapsed() < WAITING_QUEUE_KNOWN)
    }

    /// The queues in which messages for `queue` wait, as far as this handle made them.
    pub(crate) fn waiting_of(&self, queue: &QueueName) -> Vec<(Waiting, String)> {
        let known = self.known();
        let all = known.waiting_of.get(queue).into_iter().flatten();
        all.map(|&(retry, millis)| {
            let why = if retry { Waiting::Retry } else { Waiting::Delay };
            (why, names::waiting(queue.as_str(), why, millis))
        })
        .collect()
    }

    /// Ends a subscription.
    pub(crate) async fn unsubscribe(&self, queue: &QueueName, pattern: &Pattern) -> Result<()> {
        self.desk.must_exist(queue).await?;
        let exchange = self.config.exchange_for(pattern);
        // Unbinding from an exchange that is not there is refused.
        self.exchange(exchange).await?;
        let key = self.config.routing_key(pattern.as_str());
        self.desk.call(|out, id| request::queue_unbind(out, id, queue.as_str(), exchange, &key)).await?;
        if let Some(spec) = self.known().queues.get_mut(queue) {
            spec.patterns.retain(|known| known != pattern);
        }
        Ok(())
    }

    /// Deletes a queue with everything that belongs to it.
    pub(crate) async fn delete(&self, queue: &QueueName) -> Result<()> {
        self.desk.must_exist(queue).await?;
        let name = queue.as_str();
        let waiting = self.waiting_of(queue).into_iter().map(|(_, name)| name);
        let all = waiting.chain([names::notes(name), names::dead(name), name.to_owned()]);
        for name in all {
            self.desk.call(|out, id| request::queue_delete(out, id, &name)).await?;
        }
        self.forget_queue(queue);
        Ok(())
    }

    /// Forgets a queue that is gone.
    pub(crate) fn forget_queue(&self, queue: &QueueName) {
        let waiting = self.waiting_of(queue);
        let mut known = self.known();
        known.queues.remove(queue);
        known.waiting_of.remove(queue);
        for (_, name) in waiting {
            known.waiting.remove(&name);
        }
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX).clamp(1, i64::from(u32::MAX) - 1)
}

fn waiting_arguments(wait: u64) -> Vec<u8> {
    let wait = i64::try_from(wait).unwrap_or(i64::MAX);
    let expires = wait.saturating_add(2 * millis(WAITING_QUEUE_KNOWN)).min(i64::from(u32::MAX) - 1);
    let mut arguments = Vec::new();
    put_i64_field(&mut arguments, "x-message-ttl", wait);
    put_i64_field(&mut arguments, "x-expires", expires);
    arguments
}
