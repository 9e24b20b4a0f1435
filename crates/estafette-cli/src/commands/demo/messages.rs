//! What is sent in the demo, and what each queue takes.

use std::time::Duration;

use estafette::{Bus, Bytes, Message, Outgoing, Pattern, QueueName, QueueSpec, Raw, Result, Topic};
use serde::{Deserialize, Serialize};

/// The queues, and the patterns they are subscribed to. `order.created` has copies in two of them.
pub(super) const QUEUES: [(&str, &[&str]); 3] =
    [("orders", &["order.*"]), ("mailer", &["email.*", "order.created"]), ("images", &["image.*"])];

/// The queues to declare.
pub(super) fn specs() -> Result<Vec<QueueSpec>> {
    let spec = |(name, patterns): (&str, &[&str])| {
        let durable = QueueSpec::durable(QueueName::try_from(name)?);
        patterns.iter().try_fold(durable, |spec, pattern| Ok(spec.subscribe(Pattern::try_from(*pattern)?)))
    };
    QUEUES.into_iter().map(spec).collect()
}

/// Somebody bought something.
#[derive(Message, Serialize, Deserialize)]
#[message(topic = "order.created")]
pub(super) struct OrderCreated {
    pub(super) number: u32,
    pub(super) cents: u32,
    /// How many times the bank does not answer when it is asked for the money.
    pub(super) bank_failures: u32,
}

/// Somebody did not want it after all.
#[derive(Message, Serialize, Deserialize)]
#[message(topic = "order.cancelled")]
pub(super) struct OrderCancelled {
    pub(super) number: u32,
}

/// An event no handler of the queue knows.
#[derive(Message, Serialize, Deserialize)]
#[message(topic = "order.teleported")]
pub(super) struct OrderTeleported {
    pub(super) number: u32,
}

/// Somebody is new.
#[derive(Message, Serialize, Deserialize)]
#[message(topic = "email.welcome")]
pub(super) struct WelcomeEmail {
    pub(super) to: String,
    /// How many times the mail server is busy.
    pub(super) busy: u32,
}

/// Somebody wants to sign in, within the next moments.
#[derive(Message, Serialize, Deserialize)]
#[message(topic = "email.code")]
pub(super) struct CodeEmail {
    pub(super) to: String,
    pub(super) code: u32,
}

/// A picture to be made smaller: bytes, not JSON.
#[derive(Message)]
#[message(topic = "image.uploaded", codec = "Raw")]
pub(super) struct ImageUploaded(Bytes);

impl AsRef<[u8]> for ImageUploaded {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl From<Bytes> for ImageUploaded {
    fn from(bytes: Bytes) -> Self {
        Self(bytes)
    }
}

/// How an image begins.
pub(super) const IMAGE_START: &[u8] = b"\x89PNG\r\n";

/// Thinks of messages: mostly good ones, some that fail for a while, a few that are wrong in each way there is.
pub(super) struct Source {
    bus: Bus,
    // Seeded, so that every demo tells the same story.
    random: fastrand::Rng,
    number: u32,
}

impl Source {
    pub(super) fn new(bus: Bus) -> Self {
        Self { bus, random: fastrand::Rng::with_seed(1888), number: 0 }
    }

    /// The next message.
    pub(super) fn next(&mut self) -> Result<Outgoing> {
        self.number += 1;
        let number = self.number;
        match self.random.u32(0..100) {
            0..40 => {
                let bank_failures = self.failures();
                let cents = self.random.u32(199..50_000);
                self.bus.publish(&OrderCreated { number, cents, bank_failures }).into_outgoing()
            }
            40..50 => self.bus.publish(&OrderCancelled { number }).into_outgoing(),
            50..75 => {
                let busy = self.failures();
                let to = self.address();
                self.bus.publish(&WelcomeEmail { to, busy }).into_outgoing()
            }
            75..84 => {
                let email = CodeEmail { to: self.address(), code: self.random.u32(100_000..1_000_000) };
                self.bus.publish(&email).expires_in(Duration::from_secs(60)).into_outgoing()
            }
            84..98 => {
                let image = self.image();
                self.bus.publish(&image).into_outgoing()
            }
            _ => self.hopeless(number),
        }
    }

    /// How many times handling a message fails: mostly never, now and then a few times, rarely always.
    fn failures(&mut self) -> u32 {
        match self.random.u32(0..200) {
            0 => u32::MAX,
            1..12 => self.random.u32(1..3),
            _ => 0,
        }
    }

    fn address(&mut self) -> String {
        let name = self.random.choice(["ada", "bob", "chen", "dana", "emil", "farah"]).unwrap_or("zoe");
        let at = if self.random.u32(0..100) == 0 { "(at)" } else { "@" };
        format!("{name}{}{at}example.com", self.number)
    }

    fn image(&mut self) -> ImageUploaded {
        let start = if self.random.u32(0..50) == 0 { b"<html>" } else { IMAGE_START };
        let mut bytes = start.to_vec();
        bytes.resize_with(self.random.usize(100..4000), || self.random.u8(..));
        ImageUploaded(bytes.into())
    }

    /// A message that no handler will ever handle.
    fn hopeless(&mut self, number: u32) -> Result<Outgoing> {
        match self.random.u32(0..3) {
            0 => self.bus.publish(&OrderTeleported { number }).into_outgoing(),
            1 => self.bus.publish_body(WelcomeEmail::TOPIC, "{\"to\": 42").into_outgoing(),
            _ => {
                let late = CodeEmail { to: self.address(), code: 0 };
                let publish = self.bus.publish(&late).delay(Duration::from_millis(500));
                publish.expires_in(Duration::from_millis(100)).into_outgoing()
            }
        }
    }
}

/// The queues that take a topic.
pub(super) fn takers(topic: &Topic) -> impl Iterator<Item = usize> {
    let takes = |patterns: &[&str]| {
        patterns.iter().any(|pattern| Pattern::try_from(*pattern).is_ok_and(|pattern| pattern.matches(topic)))
    };
    (0..).zip(QUEUES).filter(move |(_, (_, patterns))| takes(patterns)).map(|(index, _)| index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_order_goes_to_two_queues() {
        assert_eq!(takers(&OrderCreated::TOPIC).collect::<Vec<_>>(), [0, 1]);
        assert_eq!(takers(&ImageUploaded::TOPIC).collect::<Vec<_>>(), [2]);
    }
}
