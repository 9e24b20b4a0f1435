//! What somebody may do.

use serde::Deserialize;

/// Names that are permitted; one that ends in `*` permits every name that begins so.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Grants {
    /// Channels to subscribe to.
    #[serde(default)]
    pub channels: Vec<String>,
    /// Channels to publish to.
    #[serde(default)]
    pub publish: Vec<String>,
    /// Queues to push to.
    #[serde(default)]
    pub queues: Vec<String>,
}

impl Grants {
    /// Whether this channel may be subscribed to.
    #[must_use]
    pub fn may_subscribe(&self, channel: &str) -> bool {
        permits(&self.channels, channel)
    }

    /// Whether this channel may be published to.
    #[must_use]
    pub fn may_publish(&self, channel: &str) -> bool {
        permits(&self.publish, channel)
    }

    /// Whether this queue may be pushed to.
    #[must_use]
    pub fn may_push(&self, queue: &str) -> bool {
        permits(&self.queues, queue)
    }
}

fn permits(names: &[String], name: &str) -> bool {
    names.iter().any(|entry| match entry.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => entry == name,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_permits_what_begins_so() {
        let grants = Grants { channels: vec!["news".into(), "room.*".into()], ..Grants::default() };
        let may = ["news", "room.1", "room.", "newsletter", "room"].map(|name| grants.may_subscribe(name));
        assert_eq!(may, [true, true, true, false, false]);
        assert!(!grants.may_publish("news") && !grants.may_push("news"));
    }
}
