//! Points in time and lengths of time as text.

use std::{
    fmt,
    ops::{Add, Sub},
    str::FromStr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use jiff::{Span, SpanRelativeTo};

use crate::{Error, ErrorKind, Result};

/// A point in time: microseconds since 1970-01-01T00:00:00Z. Text is RFC 3339 in UTC.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The time now, by this machine's clock.
    #[must_use]
    pub fn now() -> Self {
        Self::from(SystemTime::now())
    }

    /// The time `micros` microseconds after 1970-01-01T00:00:00Z.
    #[must_use]
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Microseconds since 1970-01-01T00:00:00Z.
    #[must_use]
    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// How long after `earlier` this is; zero when it is not after.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        match time.duration_since(UNIX_EPOCH) {
            Ok(after) => Self(saturating_micros(after)),
            Err(before) => Self(-saturating_micros(before.duration())),
        }
    }
}

fn saturating_micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

impl Add<Duration> for Timestamp {
    type Output = Self;

    /// Saturates at the end of time rather than overflow.
    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(saturating_micros(duration)))
    }
}

impl Sub<Duration> for Timestamp {
    type Output = Self;

    /// Saturates at the beginning of time rather than overflow.
    fn sub(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(saturating_micros(duration)))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Beyond the years -9999 to 9999 there is no RFC 3339; what is meant there is "always" or "never".
        let edge = if self.0 < 0 { jiff::Timestamp::MIN } else { jiff::Timestamp::MAX };
        let time = jiff::Timestamp::from_microsecond(self.0).unwrap_or(edge);
        fmt::Display::fmt(&time, formatter)
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl FromStr for Timestamp {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.parse::<jiff::Timestamp>() {
            Ok(time) => Ok(Self(time.as_microsecond())),
            Err(source) => Err(Error::new(ErrorKind::InvalidInput, source)),
        }
    }
}

/// Reads a length of time as people write it: `250ms`, `5s`, `1m 30s`, `1h`, `30d` (a day is 24 hours).
///
/// # Errors
///
/// [`ErrorKind::InvalidInput`] when the text is no length of time or is negative; a bare number has no unit and is refused.
pub fn parse_duration(text: &str) -> Result<Duration> {
    let invalid = |reason: String| {
        let sentence = format!("{text:?} is not a length of time such as 250ms, 5s, 1h or 30d: {reason}");
        Error::new(ErrorKind::InvalidInput, sentence)
    };
    if text.trim() == "0" {
        return Ok(Duration::ZERO);
    }
    let span: Span = text.trim().parse().map_err(|error: jiff::Error| invalid(error.to_string()))?;
    let signed =
        span.to_duration(SpanRelativeTo::days_are_24_hours()).map_err(|error| invalid(error.to_string()))?;
    Duration::try_from(signed).map_err(|_negative| invalid("it is negative".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_rfc_3339_and_reads_back() {
        let time = Timestamp::from_micros(1_795_219_200_123_456);
        assert_eq!(time.to_string(), "2026-11-21T00:00:00.123456Z");
        assert_eq!(time.to_string().parse::<Timestamp>().unwrap(), time);
        assert_eq!("2026-11-21T02:00:00.123456+02:00".parse::<Timestamp>().unwrap(), time);
    }

    #[test]
    fn adding_saturates() {
        assert_eq!((Timestamp::from_micros(1) + Duration::MAX).as_micros(), i64::MAX);
        assert!(!(Timestamp::from_micros(1) + Duration::MAX).to_string().is_empty());
    }

    #[test]
    fn durations_read_as_people_write_them() {
        assert_eq!(parse_duration("250ms").unwrap(), Duration::from_millis(250));
        assert_eq!(parse_duration("5s").unwrap(), Duration::from_secs(5));
        assert_eq!(parse_duration("1m 30s").unwrap(), Duration::from_secs(90));
        assert_eq!(parse_duration("30d").unwrap(), Duration::from_secs(30 * 86_400));
        assert_eq!(parse_duration("0").unwrap(), Duration::ZERO);
        for bad in ["", "5", "-5s", "soon"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }
}
