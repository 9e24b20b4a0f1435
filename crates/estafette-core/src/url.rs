//! Transport URLs: `scheme:rest?setting=value`.

use std::{fmt, str::FromStr};

use crate::{Error, ErrorKind, Result, parse_duration};

/// A transport's URL: the scheme that chooses the driver, the engine's address, and settings.
///
/// The address may be a plain path (`file:./mail`), so this is not a full URL parser; network transports hand the text to
/// one. Settings are taken one by one, and [`finish`](Self::finish) refuses those nobody took.
///
/// ```
/// # use estafette_core::TransportUrl;
/// let mut url: TransportUrl = "file:./mail?durability=os".parse()?;
/// assert_eq!((url.scheme(), url.address()), ("file", "./mail"));
/// assert_eq!(url.take("durability").as_deref(), Some("os"));
/// url.finish()?;
/// # Ok::<(), estafette_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransportUrl {
    scheme: String,
    address: String,
    settings: Vec<(String, String)>,
    taken: Vec<&'static str>,
}

impl TransportUrl {
    /// What is before the first colon, in lower case.
    #[must_use]
    pub fn scheme(&self) -> &str {
        &self.scheme
    }

    /// What is between the first colon and the question mark, as written.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Takes a setting out. The last one wins when it is given several times.
    pub fn take(&mut self, name: &'static str) -> Option<String> {
        self.taken.push(name);
        let mut value = None;
        self.settings.retain_mut(|(known, text)| {
            let found = known == name;
            if found {
                value = Some(std::mem::take(text));
            }
            !found
        });
        value
    }

    /// Takes a setting that is a length of time.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`] when it is none.
    pub fn take_duration(&mut self, name: &'static str) -> Result<Option<std::time::Duration>> {
        self.take(name).map(|text| parse_duration(&text)).transpose()
    }

    /// Takes a setting that reads as a `T`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`] when it does not.
    pub fn take_parsed<T: FromStr>(&mut self, name: &'static str) -> Result<Option<T>> {
        let Some(text) = self.take(name) else { return Ok(None) };
        match text.parse() {
            Ok(value) => Ok(Some(value)),
            Err(_) => {
                Err(Error::new(ErrorKind::InvalidInput, format!("setting {name}={text} cannot be read")))
            }
        }
    }

    /// Refuses settings that nobody took.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`] that names the unknown setting and the known ones.
    pub fn finish(&self) -> Result<()> {
        let Some((unknown, _)) = self.settings.first() else { return Ok(()) };
        let known = if self.taken.is_empty() { "none".to_owned() } else { self.taken.join(", ") };
        let sentence = format!("{}: has no setting {unknown:?}; it knows {known}", self.scheme);
        Err(Error::new(ErrorKind::InvalidInput, sentence))
    }
}

impl FromStr for TransportUrl {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let Some((scheme, rest)) = text.split_once(':') else {
            let sentence =
                format!("{text:?} has no scheme; a URL looks like file:./mail or sqlite:./mail.db");
            return Err(Error::new(ErrorKind::InvalidInput, sentence));
        };
        let (address, query) = rest.split_once('?').unwrap_or((rest, ""));
        let settings = query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (name.to_owned(), value.to_owned())
        });
        Ok(Self {
            scheme: scheme.to_ascii_lowercase(),
            address: address.to_owned(),
            settings: settings.collect(),
            taken: Vec::new(),
        })
    }
}

impl fmt::Display for TransportUrl {
    /// Without the settings, which may hold secrets.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.scheme, self.address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_settings_are_refused_by_name() {
        let mut url: TransportUrl = "file:x?durabilty=os".parse().unwrap();
        assert_eq!(url.take("durability"), None);
        let error = url.finish().unwrap_err().report();
        assert!(error.contains("durabilty") && error.contains("durability"), "{error}");
    }

    #[test]
    fn a_text_without_scheme_is_refused() {
        assert!("mail".parse::<TransportUrl>().is_err());
    }
}
