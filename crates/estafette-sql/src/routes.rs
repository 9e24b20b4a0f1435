//! Which queues a topic goes to: the subscriptions, as they were at one generation.

use std::{collections::HashMap, sync::Arc};

use estafette_core::{Pattern, Topic};

/// A queue's row id.
pub(crate) type QueueId = i64;

/// How many topics are remembered with their queues before all are forgotten.
const TOPICS_MAX: usize = 10_000;

/// The subscriptions. Matching is done here and not in SQL, so that it is [`Pattern`]'s on every engine.
#[derive(Debug, Default)]
pub(crate) struct Routes {
    /// The generation these are the subscriptions of; none when they must be read again.
    generation: Option<i64>,
    literal: HashMap<String, Vec<QueueId>>,
    wildcard: Vec<(Pattern, QueueId)>,
    known: HashMap<Topic, Arc<[QueueId]>>,
}

impl Routes {
    /// Whether these are the subscriptions of `generation`.
    pub(crate) fn is_current(&self, generation: i64) -> bool {
        self.generation == Some(generation)
    }

    /// Replaces them by those of `generation`.
    pub(crate) fn replace(&mut self, generation: i64, all: Vec<(Pattern, QueueId)>) {
        *self = Self { generation: Some(generation), ..Self::default() };
        for (pattern, queue) in all {
            if pattern.is_literal() {
                self.literal.entry(pattern.as_str().to_owned()).or_default().push(queue);
            } else {
                self.wildcard.push((pattern, queue));
            }
        }
    }

    /// Forgets them: what was read may have been rolled back.
    pub(crate) fn forget(&mut self) {
        self.generation = None;
    }

    /// The queues subscribed to `topic`, each once.
    pub(crate) fn queues(&mut self, topic: &Topic) -> Arc<[QueueId]> {
        if let Some(known) = self.known.get(topic) {
            return Arc::clone(known);
        }
        if self.known.len() >= TOPICS_MAX {
            self.known.clear();
        }
        let mut queues = self.literal.get(topic.as_str()).cloned().unwrap_or_default();
        let wildcard = self.wildcard.iter().filter(|(pattern, _)| pattern.matches(topic));
        queues.extend(wildcard.map(|&(_, queue)| queue));
        queues.sort_unstable();
        queues.dedup();
        let queues: Arc<[QueueId]> = queues.into();
        self.known.insert(topic.clone(), Arc::clone(&queues));
        queues
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_with_two_matching_patterns_is_named_once() {
        let mut routes = Routes::default();
        let pattern = |text: &str| Pattern::try_from(text).unwrap();
        let all = vec![(pattern("order.*"), 2), (pattern("order.created"), 2), (pattern("#"), 1)];
        routes.replace(7, all);
        assert!(routes.is_current(7) && !routes.is_current(8));
        assert_eq!(routes.queues(&Topic::from_static("order.created"))[..], [1, 2]);
        assert_eq!(routes.queues(&Topic::from_static("invoice"))[..], [1]);
        routes.forget();
        assert!(!routes.is_current(7));
    }
}
