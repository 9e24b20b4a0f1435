//! What exchanges and queues are called.

use std::{borrow::Cow, time::Duration};

use estafette_core::{Pattern, Topic};

use crate::config::{AmqpConfig, Compat, Exchanges};

/// The exchange every exchange of ours feeds, for patterns that begin with a wildcard.
pub(crate) const CATCH_ALL: &str = "estafette.all";

/// What routing keys begin with in the topology of the event dispatcher.
const AED_KEY: &str = "aed.rk.";

/// What the names of exchanges begin with through which messages wait.
const WAITING_TO_PUBLISH: &str = "estafette.delay.";

/// Why a message waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Waiting {
    /// Its publisher said so.
    Delay,
    /// It failed.
    Retry,
}

/// Where a queue's dead letters are.
pub(crate) fn dead(queue: &str) -> String {
    format!("{queue}.dead")
}

/// Where a queue's attempts are noted that the messages themselves do not tell.
pub(crate) fn notes(queue: &str) -> String {
    format!("{queue}.attempts")
}

/// Where messages for a queue wait for so many milliseconds.
pub(crate) fn waiting(queue: &str, why: Waiting, millis: u64) -> String {
    match why {
        Waiting::Delay => format!("{queue}.delay.{millis}"),
        Waiting::Retry => format!("{queue}.retry.{millis}"),
    }
}

/// Where messages to an exchange wait for so many milliseconds: a fanout exchange and a queue of this name.
pub(crate) fn waiting_to_publish(exchange: &str, millis: u64) -> String {
    format!("{WAITING_TO_PUBLISH}{exchange}.{millis}")
}

/// Whether an exchange is one through which messages wait.
pub(crate) fn is_waiting(exchange: &str) -> bool {
    exchange.starts_with(WAITING_TO_PUBLISH)
}

/// A delay in milliseconds, rounded up to two significant digits so that there are few queues for waiting.
pub(crate) fn delay_millis(delay: Duration) -> u64 {
    // What RabbitMQ takes for a TTL at most, some 49 days.
    let most = u64::from(u32::MAX) - 1;
    let exact = u64::try_from(delay.as_micros().div_ceil(1000)).unwrap_or(most).min(most);
    let mut unit = 1;
    while exact.div_ceil(unit) > 99 {
        unit *= 10;
    }
    (exact.div_ceil(unit) * unit).clamp(1, most)
}

impl AmqpConfig {
    /// The exchange a topic is published to.
    pub(crate) fn exchange_of<'a>(&'a self, topic: &'a Topic) -> &'a str {
        match &self.exchanges {
            Exchanges::FirstWord => topic.words().next().unwrap_or_default(),
            Exchanges::One { name, .. } => name,
        }
    }

    /// The exchange a pattern is bound to.
    pub(crate) fn exchange_for<'a>(&'a self, pattern: &'a Pattern) -> &'a str {
        match &self.exchanges {
            Exchanges::FirstWord => match pattern.as_str().split('.').next() {
                Some("*" | "#") | None => CATCH_ALL,
                Some(word) => word,
            },
            Exchanges::One { name, .. } => name,
        }
    }

    /// The type of an exchange.
    pub(crate) fn exchange_kind(&self) -> &str {
        match &self.exchanges {
            Exchanges::FirstWord => "topic",
            Exchanges::One { kind, .. } => kind,
        }
    }

    /// The routing key of a topic or a pattern.
    pub(crate) fn routing_key<'a>(&self, topic: &'a str) -> Cow<'a, str> {
        match self.compat {
            Compat::Aed => Cow::Owned(format!("{AED_KEY}{topic}")),
            Compat::None | Compat::Chocofamily => Cow::Borrowed(topic),
        }
    }
}

/// The topic a foreign message's routing key stands for; none when it is no topic.
pub(crate) fn topic_of(routing_key: &str) -> Option<Topic> {
    routing_key.strip_prefix(AED_KEY).unwrap_or(routing_key).parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_are_rounded_up_to_two_digits() {
        for (millis, rounded) in [
            (0, 1),
            (1, 1),
            (99, 99),
            (100, 100),
            (101, 110),
            (991, 1000),
            (30_000, 30_000),
            (86_400_001, 87_000_000),
        ] {
            assert_eq!(delay_millis(Duration::from_millis(millis)), rounded, "{millis}");
        }
        assert_eq!(delay_millis(Duration::from_micros(1001)), 2);
        assert_eq!(delay_millis(Duration::MAX), u64::from(u32::MAX) - 1);
    }

    #[test]
    fn a_pattern_that_begins_with_a_wildcard_is_bound_to_the_catch_all() {
        let config = AmqpConfig::new(Vec::new());
        for (pattern, exchange) in
            [("#", CATCH_ALL), ("*.created", CATCH_ALL), ("order.*", "order"), ("order", "order")]
        {
            assert_eq!(config.exchange_for(&pattern.parse().unwrap()), exchange);
        }
    }
}
