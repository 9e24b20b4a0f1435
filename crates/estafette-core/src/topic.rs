//! Topics: the dotted name of what a message is about.

use crate::{
    Error, ErrorKind, Result,
    text::{SharedText, text_type},
};

/// The longest topic or pattern, in bytes: what an AMQP short string holds.
pub const TOPIC_BYTES_MAX: usize = 255;

/// The dotted name of what a message is about, such as `order.created`.
///
/// One or more words joined by dots, 255 bytes at most. A word is any visible text without `.`, `*`, `#` and `>`,
/// which are separators and wildcards of one engine or another.
///
/// ```
/// use estafette_core::Topic;
/// let topic: Topic = "order.created".parse()?;
/// assert_eq!(topic.words().next(), Some("order"));
/// assert!("order..created".parse::<Topic>().is_err());
/// # Ok::<(), estafette_core::Error>(())
/// ```
#[derive(Clone)]
pub struct Topic(SharedText);

text_type!(Topic);

impl Topic {
    /// A topic from a literal. Use it in a `const` to have it checked by the compiler.
    ///
    /// # Panics
    ///
    /// When the text is not a topic.
    #[must_use]
    #[allow(clippy::panic, reason = "documented, and at compile time when used in a const")]
    pub const fn from_static(text: &'static str) -> Self {
        assert!(is_topic_ascii(text.as_bytes()), "not a topic: words joined by dots, no wildcards or spaces");
        Self(SharedText::Static(text))
    }

    /// The words between the dots.
    pub fn words(&self) -> impl Iterator<Item = &str> {
        self.0.split('.')
    }

    fn check(text: &str) -> Result<()> {
        check_words(text, "topic", word_char)
    }
}

/// Checks words joined by dots; `what` names the thing in the error's sentence.
pub(crate) fn check_words(text: &str, what: &str, allowed: fn(char) -> bool) -> Result<()> {
    let invalid =
        |problem: String| Err(Error::new(ErrorKind::InvalidInput, format!("{what} {text:?} {problem}")));
    if text.len() > TOPIC_BYTES_MAX {
        let shown: String = text.chars().take(32).collect();
        let problem =
            format!("{what} {shown:?}… is {} bytes long; the limit is {TOPIC_BYTES_MAX}", text.len());
        return Err(Error::new(ErrorKind::InvalidInput, problem));
    }
    if text.split('.').any(str::is_empty) {
        return invalid("has an empty word; words are joined by single dots, as in `order.created`".into());
    }
    match text.chars().find(|&character| character != '.' && !allowed(character)) {
        Some(character) => invalid(format!("contains {character:?}, which is not allowed there")),
        None => Ok(()),
    }
}

fn word_char(character: char) -> bool {
    !matches!(character, '*' | '#' | '>') && visible(character)
}

pub(crate) fn visible(character: char) -> bool {
    !character.is_whitespace() && !character.is_control()
}

/// The check of [`Topic`] as far as a `const fn` can make it: everything but invisible characters outside ASCII.
const fn is_topic_ascii(bytes: &[u8]) -> bool {
    let mut index = 0;
    let mut word_is_empty = true;
    while index < bytes.len() {
        #[allow(clippy::indexing_slicing, reason = "index < len; iterators are not const")]
        let byte = bytes[index];
        match byte {
            b'.' if word_is_empty => return false,
            b'.' => word_is_empty = true,
            b'*' | b'#' | b'>' | 0..=b' ' | 0x7f => return false,
            _ => word_is_empty = false,
        }
        index += 1;
    }
    !word_is_empty && bytes.len() <= TOPIC_BYTES_MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_dotted_words_of_any_script() {
        for good in ["order", "order.created", "заказ.создан", "a-b_c:d.1", "订单.创建"] {
            assert!(Topic::try_from(good).is_ok(), "{good}");
            assert!(is_topic_ascii(good.as_bytes()), "{good}");
        }
    }

    #[test]
    fn refuses_wildcards_empty_words_and_invisible_characters() {
        for bad in ["", ".", "a.", ".a", "a..b", "a b", "a.*", "#", "a.>", "a\nb", "a\0", "a\u{a0}b"] {
            let error = Topic::try_from(bad).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{bad:?}");
        }
        assert!(Topic::try_from("a".repeat(256)).is_err());
        assert!(Topic::try_from("a".repeat(255)).is_ok());
    }

    #[test]
    fn a_const_topic_is_checked_at_compile_time() {
        const TOPIC: Topic = Topic::from_static("order.created");
        assert_eq!(TOPIC, "order.created");
    }
}
