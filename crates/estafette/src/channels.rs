//! From the bus to the users' open connections: messages addressed to a channel of the gateway.
//!
//! They wait in the queue [`CHANNELS`] like any other message, so that what a transaction committed (through the outbox,
//! too) reaches the browsers even when the gateway was away for a moment. A forwarder takes them and publishes their
//! bodies over the management API of any node.

use std::time::Duration;

use estafette_client::{Client, ErrorKind, Payload};
use estafette_consumer::{Consumer, Context, Verdict};
use estafette_core::Message;

use crate::{Bus, Publish};

/// The queue in which messages for channels wait.
pub const CHANNELS: &str = "channels";

/// The header that names the channel. An outbox needs no more than it:
/// `outbox.entry(&event).to_queue(CHANNELS).header(CHANNEL_HEADER, "user_10001").publish(&mut transaction)`.
pub const CHANNEL_HEADER: &str = "channel";

/// How long to wait for a gateway that is away; attempts are not counted meanwhile.
const AWAY: Duration = Duration::from_secs(1);

impl Bus {
    /// A message for every connection that is subscribed to `channel`, on all nodes of the gateway. It goes to the
    /// queue [`CHANNELS`] when the returned [`Publish`] is awaited, and on when a [forwarder](Bus::channel_forwarder) takes it.
    ///
    /// Give it a time to expire if it is worth nothing later: `.expires_in(…)`.
    pub fn publish_to_channel<M: Message>(&self, channel: &str, event: &M) -> Publish {
        self.send(CHANNELS, event).header(CHANNEL_HEADER, channel)
    }

    /// The consumer that publishes what is in [`CHANNELS`] over `client`. Run as many as you like, in any program.
    ///
    /// A message may reach a connection twice. One without subscribers is done: nobody is there to see it.
    pub fn channel_forwarder(&self, client: Client) -> Consumer {
        self.consumer(CHANNELS).handle_any(move |context: Context| {
            let client = client.clone();
            async move { forward(&client, &context).await }
        })
    }
}

async fn forward(client: &Client, context: &Context) -> Result<Verdict, estafette_client::Error> {
    let Some(channel) = context.header(CHANNEL_HEADER) else {
        return Ok(Verdict::reject("the message has no header that names its channel"));
    };
    let body = context.envelope().body.to_vec();
    let payload =
        String::from_utf8(body).map_or_else(|error| Payload::Binary(error.into_bytes()), Payload::Text);
    match client.publish(channel, payload).await {
        Ok(published) => {
            tracing::debug!(channel, published.success, published.fail, "forwarded to a channel");
            Ok(Verdict::Ack)
        }
        Err(error) if error.kind() == ErrorKind::Unavailable => Ok(Verdict::Snooze(AWAY)),
        Err(error) if error.kind() == ErrorKind::InvalidInput => Ok(Verdict::reject(error.report())),
        Err(error) => Err(error),
    }
}
