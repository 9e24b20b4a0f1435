//! The journal of a claim: the numbers of its lines that are settled, eight bytes each.
//!
//! It is appended to without a flush: what is in it survives the end of any process, not a power cut, after which those
//! messages may come again. It goes away with its claim.

use std::{collections::HashSet, os::fd::AsFd};

use rustix::io::Errno;

use crate::disk;

/// The length of a record: seven digits and a line feed.
pub(crate) const RECORD_BYTES: u64 = 8;

/// Records for lines.
pub(crate) fn records(numbers: impl Iterator<Item = u32>) -> Vec<u8> {
    numbers.flat_map(|number| format!("{number:07}\n").into_bytes()).collect()
}

/// The lines a journal says are settled; none when there is no journal. A record that was cut short does not count.
pub(crate) fn read(dir: impl AsFd, name: &str) -> Result<HashSet<u32>, Errno> {
    let bytes = match disk::read_file(dir, name) {
        Ok(bytes) => bytes,
        Err(Errno::NOENT) => return Ok(HashSet::new()),
        Err(errno) => return Err(errno),
    };
    let record = |record: &[u8]| std::str::from_utf8(record.strip_suffix(b"\n")?).ok()?.parse().ok();
    Ok(bytes.chunks(8).filter_map(record).collect())
}
