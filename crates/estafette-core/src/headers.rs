//! Headers: text the application attaches to a message.

use crate::{Error, ErrorKind, Result};

/// The longest header name, in bytes: what an AMQP short string holds.
pub const HEADER_NAME_BYTES_MAX: usize = 255;

/// Names and values the application attaches to a message, in the order they were set.
///
/// Names are visible text of at most 255 bytes, compared exactly; values are any text, also empty. A handful is expected:
/// looking one up walks the list. The order means nothing, and engines do not keep it: equal are headers with the same names
/// and values.
#[derive(Clone, Debug, Default)]
pub struct Headers(Vec<(Box<str>, Box<str>)>);

impl PartialEq for Headers {
    fn eq(&self, other: &Self) -> bool {
        // Each name is there once.
        self.0.len() == other.0.len() && self.iter().all(|(name, value)| other.get(name) == Some(value))
    }
}

impl Eq for Headers {}

impl Headers {
    /// No headers.
    #[must_use]
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Sets `name` to `value`, replacing what it had.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`] when the name is empty, too long or has invisible characters.
    pub fn insert(&mut self, name: &str, value: &str) -> Result<()> {
        if name.is_empty() || name.len() > HEADER_NAME_BYTES_MAX || !name.chars().all(crate::topic::visible) {
            let sentence =
                format!("header name {name:?} must be 1 to {HEADER_NAME_BYTES_MAX} bytes of visible text");
            return Err(Error::new(ErrorKind::InvalidInput, sentence));
        }
        match self.0.iter_mut().find(|(known, _)| &**known == name) {
            Some((_, old)) => *old = value.into(),
            None => self.0.push((name.into(), value.into())),
        }
        Ok(())
    }

    /// The value of `name`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| &**known == name).map(|(_, value)| &**value)
    }

    /// Takes `name` out and returns its value.
    pub fn remove(&mut self, name: &str) -> Option<String> {
        let index = self.0.iter().position(|(known, _)| &**known == name)?;
        Some(self.0.remove(index).1.into())
    }

    /// Every name and value, in the order they were set.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_holds_one_value_and_keeps_its_place() {
        let mut headers = Headers::new();
        headers.insert("a", "1").unwrap();
        headers.insert("b", "").unwrap();
        headers.insert("a", "2").unwrap();
        assert_eq!(headers.iter().collect::<Vec<_>>(), [("a", "2"), ("b", "")]);
        assert_eq!(headers.remove("a").as_deref(), Some("2"));
        assert_eq!(headers.get("a"), None);
    }

    #[test]
    fn equal_whatever_the_order() {
        let headers = |names: [&str; 2]| {
            let mut headers = Headers::new();
            names.iter().for_each(|name| headers.insert(name, name).unwrap());
            headers
        };
        assert_eq!(headers(["a", "b"]), headers(["b", "a"]));
        assert_ne!(headers(["a", "b"]), headers(["a", "c"]));
        assert_ne!(headers(["a", "b"]), Headers::new());
    }

    #[test]
    fn bad_names_are_refused() {
        for bad in ["", "a b", "a\n"] {
            assert!(Headers::new().insert(bad, "x").is_err(), "{bad:?}");
        }
    }
}
