//! Patterns: topics with wildcards, by the rules of AMQP topic exchanges.

use crate::{
    Result, Topic,
    text::{SharedText, text_type},
    topic::{check_words, visible},
};

/// A topic with wildcards: `*` stands for exactly one word, `#` for zero or more.
///
/// The rules are those of AMQP 0-9-1 topic exchanges. A wildcard is a whole word: `order.*` but not `order.cre*`.
///
/// ```
/// use estafette_core::{Pattern, Topic};
/// let pattern: Pattern = "order.#".parse()?;
/// assert!(pattern.matches(&"order".parse()?));
/// assert!(pattern.matches(&"order.created.eu".parse()?));
/// assert!(!pattern.matches(&"invoice.created".parse()?));
/// # Ok::<(), estafette_core::Error>(())
/// ```
#[derive(Clone)]
pub struct Pattern(SharedText);

text_type!(Pattern);

impl Pattern {
    /// Whether `topic` is one of those this pattern stands for.
    #[must_use]
    pub fn matches(&self, topic: &Topic) -> bool {
        if self.is_literal() { self.as_str() == topic.as_str() } else { matches(&self.0, topic.as_str()) }
    }

    /// Whether the pattern has no wildcard, so that it stands for exactly one topic.
    #[must_use]
    pub fn is_literal(&self) -> bool {
        !self.0.bytes().any(|byte| matches!(byte, b'*' | b'#'))
    }

    fn check(text: &str) -> Result<()> {
        check_words(text, "pattern", |character| character != '>' && visible(character))?;
        if text.split('.').any(|word| word.len() > 1 && word.contains(['*', '#'])) {
            let sentence =
                format!("pattern {text:?} has a wildcard inside a word; `*` and `#` stand for whole words");
            return Err(crate::Error::new(crate::ErrorKind::InvalidInput, sentence));
        }
        Ok(())
    }
}

impl From<&Topic> for Pattern {
    fn from(topic: &Topic) -> Self {
        Self(SharedText::from(topic.as_str()))
    }
}

/// Greedy matching with one point to go back to, so that the time is at most pattern words times topic words.
fn matches(pattern: &str, topic: &str) -> bool {
    let mut pattern = pattern.split('.').peekable();
    let mut topic = topic.split('.');
    // Where to resume when a word does not fit: after the last `#`, which then takes one word more.
    let mut resume = None;
    loop {
        if pattern.peek() == Some(&"#") {
            pattern.next();
            resume = Some((pattern.clone(), topic.clone()));
            continue;
        }
        match (pattern.next(), topic.next()) {
            (None, None) => return true,
            (Some("*"), Some(_)) => {}
            (Some(expected), Some(word)) if expected == word => {}
            (Some(_), None) => return false,
            (None | Some(_), Some(_)) => {
                let Some((pattern_then, mut topic_then)) = resume.take() else { return false };
                if topic_then.next().is_none() {
                    return false;
                }
                pattern = pattern_then.clone();
                topic = topic_then.clone();
                resume = Some((pattern_then, topic_then));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pattern: &str, topic: &str) -> bool {
        Pattern::try_from(pattern).unwrap().matches(&Topic::try_from(topic).unwrap())
    }

    #[test]
    fn star_is_one_word_and_hash_any_number() {
        assert!(check("order.*", "order.created"));
        assert!(!check("order.*", "order"));
        assert!(!check("order.*", "order.created.eu"));
        assert!(check("#", "a.b.c"));
        assert!(check("#.c", "c"));
        assert!(check("#.c", "a.b.c"));
        assert!(check("a.#.c", "a.c"));
        assert!(check("a.#.c", "a.b.b.c"));
        assert!(check("a.#.b.#.c", "a.x.b.y.c"));
        assert!(!check("a.#.b.#.c", "a.x.y.c"));
        assert!(check("*.#", "a"));
        assert!(check("#.#", "a"));
        assert!(check("#.b.*", "b.b.b"));
        assert!(!check("#.*.*", "a"));
    }

    #[test]
    fn a_wildcard_inside_a_word_is_refused() {
        assert!(Pattern::try_from("order.cre*").is_err());
        assert!(Pattern::try_from("a.##").is_err());
        assert!(Pattern::try_from("a.>").is_err());
    }

    proptest::proptest! {
        #[test]
        fn agrees_with_the_definition(pattern in "[ab*#](\\.[ab*#]){0,5}", topic in "[ab](\\.[ab]){0,5}") {
            fn defined(pattern: &[&str], topic: &[&str]) -> bool {
                match (pattern.split_first(), topic.split_first()) {
                    (None, None) => true,
                    (Some((&"#", rest)), _) => {
                        (0..=topic.len()).any(|taken| defined(rest, &topic[taken..]))
                    }
                    (Some((&"*", rest)), Some((_, words))) => defined(rest, words),
                    (Some((word, rest)), Some((first, words))) => word == first && defined(rest, words),
                    _ => false,
                }
            }
            let words: Vec<&str> = topic.split('.').collect();
            let expected = defined(&pattern.split('.').collect::<Vec<_>>(), &words);
            proptest::prop_assert_eq!(check(&pattern, &topic), expected);
        }
    }
}
