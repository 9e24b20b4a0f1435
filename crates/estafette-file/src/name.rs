//! The names of files: what they say is all the index there is.
//!
//! An **entry** in `new/` or `dead/` stands for some consecutive lines of a file, which may have several entries (hard
//! links), each for other lines:
//!
//! ```text
//! 1795219200123456-5f0c2a9b11d300000007-l0000000-n100-o0-a1-r-k1f2e3d4c.msg
//! due, microseconds  file's number       line    count byte attempts retry key
//! ```
//!
//! `-a` is how often these lines were handed over under this entry, `-r` marks waiting for a retry, `-k` is the hash of the
//! partition key where order by key needs it. A **claim** in `claimed/` is an entry's name and who holds it, until when:
//!
//! ```text
//! …-w5f0c2a9b11d3-c12-u1795219230123456-s5.10-x.msg
//!   owner         number  lease ends     part  being returned
//! ```
//!
//! Text sorts by due time. All characters are legal on every file system.

use std::fmt;

use estafette_core::Timestamp;

/// The largest time that fits into the 16 digits of a name: the year 2286.
const TIME_MAX: i64 = 9_999_999_999_999_999;

const SUFFIX: &str = ".msg";

/// Tells one open transport from every other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct OwnerId(pub(crate) u64);

impl fmt::Display for OwnerId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:012x}", self.0)
    }
}

impl OwnerId {
    pub(crate) const BITS: u32 = 48;

    pub(crate) fn parse(text: &str) -> Option<Self> {
        (text.len() == 12).then(|| u64::from_str_radix(text, 16).ok().map(Self)).flatten()
    }
}

/// Tells one message file from every other: who wrote it, and the how-manieth it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct FileId {
    pub(crate) owner: OwnerId,
    pub(crate) number: u32,
}

impl fmt::Display for FileId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}{:08x}", self.owner, self.number)
    }
}

impl FileId {
    fn parse(text: &str) -> Option<Self> {
        let (owner, number) = text.split_at_checked(12)?;
        let number = (number.len() == 8).then(|| u32::from_str_radix(number, 16).ok()).flatten()?;
        Some(Self { owner: OwnerId::parse(owner)?, number })
    }
}

/// Which lines of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    /// The first line, from 0.
    pub(crate) first: u32,
    /// How many; at least one.
    pub(crate) count: u32,
    /// Where the first line begins, in bytes.
    pub(crate) offset: u64,
}

/// The name of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EntryName {
    pub(crate) due: Timestamp,
    pub(crate) file: FileId,
    pub(crate) span: Span,
    pub(crate) attempts: u32,
    pub(crate) retrying: bool,
    pub(crate) key: Option<u32>,
}

impl fmt::Display for EntryName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.stem(formatter)?;
        formatter.write_str(SUFFIX)
    }
}

impl EntryName {
    fn stem(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { due, file, span: Span { first, count, offset }, attempts, retrying, key } = self;
        let due = due.as_micros().clamp(0, TIME_MAX);
        write!(formatter, "{due:016}-{file}-l{first:07}-n{count}-o{offset}")?;
        if *attempts > 0 {
            write!(formatter, "-a{attempts}")?;
        }
        if *retrying {
            formatter.write_str("-r")?;
        }
        if let Some(key) = key {
            write!(formatter, "-k{key:08x}")?;
        }
        Ok(())
    }

    /// The entry a name stands for; none when it is not one of ours.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        let mut fields = Fields::parse(name)?;
        let entry = fields.entry()?;
        fields.claim.is_none().then_some(entry)
    }

    /// When the entry of this name becomes visible, without looking at the rest.
    pub(crate) fn due_of(name: &str) -> Option<Timestamp> {
        name.get(..16)?.parse().ok().map(Timestamp::from_micros)
    }

    /// The same entry for other lines of the file.
    pub(crate) fn with_span(&self, span: Span) -> Self {
        Self { span, ..self.clone() }
    }
}

/// The name of a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClaimName {
    pub(crate) entry: EntryName,
    pub(crate) owner: OwnerId,
    /// Which claim of that owner; names the journal, too.
    pub(crate) number: u64,
    pub(crate) until: Timestamp,
    /// Only so many lines from this one are to be kept, the others are on their way back to `new/`.
    pub(crate) part: Option<(u32, u32)>,
    /// Somebody else is returning it: the owner has lost it.
    pub(crate) returning: bool,
}

impl fmt::Display for ClaimName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.entry.stem(formatter)?;
        let until = self.until.as_micros().clamp(0, TIME_MAX);
        write!(formatter, "-w{}-c{}-u{until:016}", self.owner, self.number)?;
        if let Some((first, count)) = self.part {
            write!(formatter, "-s{first}.{count}")?;
        }
        if self.returning {
            formatter.write_str("-x")?;
        }
        formatter.write_str(SUFFIX)
    }
}

impl ClaimName {
    pub(crate) fn parse(name: &str) -> Option<Self> {
        let mut fields = Fields::parse(name)?;
        let entry = fields.entry()?;
        let (number, until) = fields.claim.zip(fields.until)?;
        let (owner, part, returning) = (fields.owner?, fields.part, fields.returning);
        Some(Self { entry, owner, number, until, part, returning })
    }

    /// The name of the journal of this claim's settled lines.
    pub(crate) fn journal(&self) -> String {
        format!("{}-{}{JOURNAL_SUFFIX}", self.owner, self.number)
    }
}

/// What journals end in.
pub(crate) const JOURNAL_SUFFIX: &str = ".acks";

#[derive(Default)]
struct Fields {
    due: Timestamp,
    file: Option<FileId>,
    first: Option<u32>,
    count: Option<u32>,
    offset: Option<u64>,
    attempts: u32,
    retrying: bool,
    key: Option<u32>,
    owner: Option<OwnerId>,
    claim: Option<u64>,
    until: Option<Timestamp>,
    part: Option<(u32, u32)>,
    returning: bool,
}

impl Fields {
    fn parse(name: &str) -> Option<Self> {
        let mut words = name.strip_suffix(SUFFIX)?.split('-');
        let due = words.next().filter(|word| word.len() == 16)?;
        let mut fields = Self { due: time(due)?, file: FileId::parse(words.next()?), ..Self::default() };
        for word in words {
            let (letter, value) = word.split_at_checked(1)?;
            match letter {
                "l" => fields.first = Some(value.parse().ok()?),
                "n" => fields.count = Some(value.parse().ok().filter(|&count| count > 0)?),
                "o" => fields.offset = Some(value.parse().ok()?),
                "a" => fields.attempts = value.parse().ok()?,
                "r" => fields.retrying = true,
                "k" => fields.key = Some(u32::from_str_radix(value, 16).ok()?),
                "w" => fields.owner = Some(OwnerId::parse(value)?),
                "c" => fields.claim = Some(value.parse().ok()?),
                "u" => fields.until = Some(time(value)?),
                "s" => {
                    let (first, count) = value.split_once('.')?;
                    fields.part = Some((first.parse().ok()?, count.parse().ok()?));
                }
                "x" => fields.returning = true,
                _ => return None,
            }
        }
        Some(fields)
    }

    fn entry(&mut self) -> Option<EntryName> {
        let span = Span { first: self.first?, count: self.count?, offset: self.offset? };
        span.first.checked_add(span.count)?;
        let (due, file) = (self.due, self.file?);
        Some(EntryName { due, file, span, attempts: self.attempts, retrying: self.retrying, key: self.key })
    }
}

fn time(text: &str) -> Option<Timestamp> {
    let digits = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok().map(Timestamp::from_micros)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> EntryName {
        EntryName {
            due: Timestamp::from_micros(1_795_219_200_123_456),
            file: FileId { owner: OwnerId(0x5f0c_2a9b_11d3), number: 7 },
            span: Span { first: 3, count: 100, offset: 12_345 },
            attempts: 2,
            retrying: true,
            key: Some(0x1f2e),
        }
    }

    #[test]
    fn names_read_back() {
        let plain = EntryName { attempts: 0, retrying: false, key: None, ..entry() };
        for entry in [entry(), plain] {
            assert_eq!(EntryName::parse(&entry.to_string()), Some(entry.clone()));
            let until = Timestamp::from_micros(1_795_219_230_123_456);
            let owner = OwnerId(1);
            let claim = ClaimName { entry, owner, number: 12, until, part: None, returning: false };
            let other = ClaimName { part: Some((5, 10)), returning: true, ..claim.clone() };
            assert_eq!(ClaimName::parse(&claim.to_string()), Some(claim.clone()));
            assert_eq!(ClaimName::parse(&other.to_string()), Some(other));
            assert_eq!(EntryName::parse(&claim.to_string()), None);
        }
    }

    #[test]
    fn names_sort_by_due_time_and_then_by_line() {
        let early = entry().to_string();
        let next_line = entry().with_span(Span { first: 1000, ..entry().span }).to_string();
        let later = EntryName { due: Timestamp::from_micros(1_795_219_200_123_457), ..entry() }.to_string();
        assert!(early < next_line && next_line < later);
        assert_eq!(EntryName::due_of(&early), Some(entry().due));
    }

    #[test]
    fn foreign_names_are_none_of_ours() {
        let long = "9".repeat(16);
        for name in [
            "",
            "x.json",
            ".msg",
            "1-2.msg",
            "ünïcödé-ü.msg",
            &format!("{long}-ü.msg"),
            &format!("{long}.msg"),
        ] {
            assert_eq!(EntryName::parse(name), None, "{name}");
            assert_eq!(ClaimName::parse(name), None, "{name}");
        }
    }
}
