//! From the texts of the command line to values.

use std::{error::Error as _, str::FromStr, time::Duration};

use estafette::{Error, Headers};

/// A topic, pattern, queue name, id or reason.
///
/// # Errors
///
/// The sentence that says what is wrong with it.
pub(crate) fn name<T: FromStr<Err = Error>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|error| sentence(&error))
}

/// A length of time, such as `5s`.
///
/// # Errors
///
/// A sentence.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    estafette::parse_duration(text).map_err(|error| sentence(&error))
}

/// The shortest lease: a shorter one ends before a busy machine has extended it, and each time that spends an attempt.
const LEASE_MIN: Duration = Duration::from_millis(100);

/// The length of a lease, such as `30s`.
///
/// # Errors
///
/// A sentence.
pub(crate) fn lease(text: &str) -> Result<Duration, String> {
    let lease = duration(text)?;
    if lease < LEASE_MIN {
        return Err(format!(
            "a lease takes at least {LEASE_MIN:?}: a shorter one ends while its message is handled"
        ));
    }
    Ok(lease)
}

/// A header, `NAME=VALUE`.
///
/// # Errors
///
/// A sentence.
pub(crate) fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("a header looks like NAME=VALUE")?;
    Headers::new().insert(name, value).map_err(|error| sentence(&error))?;
    Ok((name.to_owned(), value.to_owned()))
}

/// An amount of memory, such as `256MiB`.
///
/// # Errors
///
/// A sentence.
pub(crate) fn bytes(text: &str) -> Result<u64, String> {
    let digits = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit.trim() {
        "" | "B" => 1,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "K" | "KiB" => 1 << 10,
        "M" | "MiB" => 1 << 20,
        "G" | "GiB" => 1 << 30,
        _ => return Err("an amount of memory looks like 256MiB, 1GiB or 500MB".into()),
    };
    let number: u64 = number.parse().map_err(|_error| "an amount of memory begins with a number")?;
    number.checked_mul(factor).ok_or_else(|| "that is more memory than there can be".into())
}

/// What is wrong, without the word for its kind.
fn sentence(error: &Error) -> String {
    error.source().map_or_else(|| error.to_string(), ToString::to_string)
}

#[cfg(test)]
mod tests {
    use estafette::Topic;

    use super::*;

    #[test]
    fn amounts_of_memory_have_units() {
        assert_eq!(bytes("256MiB"), Ok(256 << 20));
        assert_eq!(bytes("2 GB"), Ok(2_000_000_000));
        assert_eq!(bytes("17"), Ok(17));
        for wrong in ["", "MiB", "3 pounds", "-1", "99999999999GiB"] {
            assert!(bytes(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_lease_is_long_enough_to_be_extended() {
        assert_eq!(lease("100ms"), Ok(Duration::from_millis(100)));
        for wrong in ["0s", "99ms", "soon"] {
            assert!(lease(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn headers_are_names_and_values() {
        assert_eq!(header("a=b=c"), Ok(("a".into(), "b=c".into())));
        assert!(header("a").is_err());
        assert!(header("=b").is_err());
    }

    #[test]
    fn a_wrong_name_is_explained_in_a_sentence() {
        assert!(name::<Topic>("order created").unwrap_err().starts_with("topic \"order created\""));
    }
}
