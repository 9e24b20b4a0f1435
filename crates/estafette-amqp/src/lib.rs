//! Estafette's RabbitMQ transport, `amqp:` and `amqps:`, over AMQP 0-9-1.
//!
//! | our word | in RabbitMQ |
//! |---|---|
//! | topic | the routing key, on a durable topic exchange named like the topic's first word |
//! | pattern | a binding; one that begins with a wildcard is bound to `estafette.all`, which every exchange of ours feeds |
//! | queue | a durable queue (classic or quorum) whose dead letters go to `<queue>.dead` |
//! | temporary queue | a queue that expires half a minute after its last consumer, or when the receiver is closed |
//! | publish | `basic.publish`, mandatory, persistent, confirmed; many in flight |
//! | send | to the default exchange; the queue is made when the message comes back |
//! | ack | `basic.ack`, one for everything up to the last when nothing before it is open |
//! | retry, delay | a copy in `<queue>.retry.<ms>` or `<queue>.delay.<ms>`, which expires back into the queue; then an ack |
//! | reject | a copy in `<queue>.dead`, then an ack |
//! | release | `basic.nack` into its old place, and a note that the attempt does not count |
//! | attempt | a header, and notes in `<queue>.attempts` for what came back without being written again |
//! | lease | a timer here: the broker knows none. A connection that ends takes all of its leases along |
//!
//! What it does not promise: order by partition key; cancelling a delayed message; listing queues that other programs made;
//! an ack is not confirmed by the broker, so that a connection lost right after it may bring the message again; a message that
//! waits in a classic queue when its node is killed may be lost between that queue and the next (quorum queues do not).
//! Delays are rounded up to two significant digits. Tried with RabbitMQ 3.10.
//!
//! Reading order: `config`, `names`, `envelope`, `marks` (what is on the wire); `protocol`, `link`, `connector`, `desk`
//! (talking to the broker); `topology`; `publication`, `confirms`, `publisher`; `hold`, `receiver`, `settler`, `watch`,
//! `attempts`; `dead`, `admin`.

mod admin;
mod attempts;
mod config;
mod confirms;
mod connector;
mod dead;
mod desk;
mod envelope;
mod error;
mod hold;
mod link;
mod marks;
mod names;
mod protocol;
mod publication;
mod publisher;
mod receiver;
mod settler;
mod topology;
mod watch;

use std::sync::{Arc, Mutex, Weak};

use estafette_core::{
    Admin, Durability, Guarantees, Order, Outgoing, QueueName, QueueSpec, Receipt, ReceiveOptions, Receiver,
    Result, Support, Transport, TransportUrl, async_trait,
};

pub use config::{AmqpConfig, Argument, Compat, Declaring, Endpoint, Exchanges, Password, QueueType, Tls};

use crate::{
    attempts::Attempts, connector::Connector, desk::Desk, hold::Hold, publisher::Publisher,
    receiver::AmqpReceiver, topology::Topology,
};

/// Queues in RabbitMQ. Clones share the connections.
#[derive(Clone)]
pub struct AmqpTransport {
    shared: Arc<Shared>,
}

struct Shared {
    config: Arc<AmqpConfig>,
    /// Publishing has a connection of its own: the broker blocks it when it is low on memory, and acks must go on.
    publishing: Arc<Connector>,
    consuming: Arc<Connector>,
    desk: Arc<Desk>,
    topology: Arc<Topology>,
    publisher: Arc<Publisher>,
    attempts: Attempts,
    /// What this handle's receivers hold.
    holds: Mutex<Vec<Weak<Hold>>>,
}

impl AmqpTransport {
    /// Connects with these settings, to see whether they are right; a broker that is away is waited for within
    /// [`AmqpConfig::patience`].
    ///
    /// # Errors
    ///
    /// [`Denied`](estafette_core::ErrorKind::Denied) for wrong credentials or a virtual host that may not be used,
    /// [`Unavailable`](estafette_core::ErrorKind::Unavailable) when no broker could be reached.
    pub async fn connect(config: AmqpConfig) -> Result<Self> {
        let config = Arc::new(config);
        let publishing = Arc::new(Connector::new(Arc::clone(&config), "publishing"));
        let consuming = Arc::new(Connector::new(Arc::clone(&config), "consuming"));
        let desk = Arc::new(Desk::new(Arc::clone(&config), Arc::clone(&consuming)));
        let topology = Arc::new(Topology::new(Arc::clone(&config), Arc::clone(&desk)));
        let publisher =
            Arc::new(Publisher::new(Arc::clone(&config), Arc::clone(&publishing), Arc::clone(&topology)));
        let attempts = Attempts::new(Arc::clone(&desk), Arc::clone(&topology), Arc::clone(&publisher));
        consuming.link(desk.deadline()).await?;
        let holds = Mutex::default();
        let shared = Shared { config, publishing, consuming, desk, topology, publisher, attempts, holds };
        Ok(Self { shared: Arc::new(shared) })
    }
}

/// Connects to `amqp://user:password@host:port/vhost`, or with TLS to `amqps://…`.
///
/// # Errors
///
/// [`InvalidInput`](estafette_core::ErrorKind::InvalidInput) for a URL that cannot be read or an unknown setting; those of
/// [`AmqpTransport::connect`].
pub async fn connect(url: TransportUrl) -> Result<Arc<dyn Transport>> {
    Ok(Arc::new(AmqpTransport::connect(AmqpConfig::from_url(url)?).await?))
}

#[async_trait]
impl Transport for AmqpTransport {
    fn guarantees(&self) -> Guarantees {
        Guarantees {
            durability: Durability::Server,
            order: Order::Queue,
            shared: true,
            topics: Support::Native,
            delay: Support::Emulated,
            expiry: Support::Native,
            attempts: Support::Emulated,
            dead_letters: Support::Native,
            temporary_queues: Support::Native,
            lease_extend: Support::Emulated,
            fencing: Support::Emulated,
            cancel: Support::None,
            body_bytes_max: self.shared.config.body_bytes_max,
        }
    }

    async fn declare(&self, queue: &QueueSpec) -> Result<()> {
        self.shared.check_open()?;
        self.shared.topology.declare(queue).await
    }

    async fn publish(&self, batch: &[Outgoing]) -> Vec<Result<Receipt>> {
        if let Err(error) = self.shared.check_open() {
            return vec![Err(error); batch.len()];
        }
        self.shared.publisher.publish(batch).await
    }

    async fn receiver(&self, queue: &QueueName, options: ReceiveOptions) -> Result<Box<dyn Receiver>> {
        Ok(Box::new(AmqpReceiver::open(Arc::clone(&self.shared), queue, options).await?))
    }

    fn admin(&self) -> &dyn Admin {
        &*self.shared
    }

    async fn close(&self) -> Result<()> {
        self.shared.publisher.close().await;
        self.shared.desk.close().await;
        self.shared.publishing.close().await;
        self.shared.consuming.close().await;
        Ok(())
    }
}
