//! The packets: a header of 12 bytes (magic, kind, length), then arguments with a zero byte between each two.
//!
//! Facts: Gearman's PROTOCOL document; tried with gearmand 1.1.20. The codec is our own because no crate for it is
//! maintained: `rustygear` calls itself alpha, `gearrs` is a client only, `gearman-worker` is of 2019.

use bytes::{Buf, Bytes, BytesMut};

/// What a packet is. Only those that are spoken here.
pub(crate) mod kind {
    pub(crate) const CAN_DO: u32 = 1;
    pub(crate) const CANT_DO: u32 = 2;
    pub(crate) const RESET_ABILITIES: u32 = 3;
    pub(crate) const PRE_SLEEP: u32 = 4;
    pub(crate) const NOOP: u32 = 6;
    pub(crate) const JOB_CREATED: u32 = 8;
    pub(crate) const NO_JOB: u32 = 10;
    pub(crate) const WORK_COMPLETE: u32 = 13;
    pub(crate) const ECHO_REQ: u32 = 16;
    pub(crate) const SUBMIT_JOB_BG: u32 = 18;
    pub(crate) const ERROR: u32 = 19;
    pub(crate) const GRAB_JOB_UNIQ: u32 = 30;
    pub(crate) const JOB_ASSIGN_UNIQ: u32 = 31;
    pub(crate) const SUBMIT_JOB_HIGH_BG: u32 = 32;
    pub(crate) const SUBMIT_JOB_EPOCH: u32 = 36;
}

const REQUEST: &[u8; 4] = b"\0REQ";
const RESPONSE: &[u8; 4] = b"\0RES";
const HEADER_BYTES: usize = 12;

/// What is there besides the data of the largest packet: its names and handles.
pub(crate) const OVERHEAD_BYTES_MAX: usize = 4096;

/// The longest unique id gearmand takes, in bytes.
pub(crate) const UNIQUE_BYTES_MAX: usize = 64;

/// A packet as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Packet {
    pub(crate) kind: u32,
    pub(crate) data: Bytes,
}

/// Bytes that are no packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Malformed {
    /// They do not begin with the magic word of a response.
    Magic,
    /// The packet says that it is longer than anything a server may send.
    Length(usize),
    /// An argument is missing.
    Arguments(u32),
}

impl std::fmt::Display for Malformed {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Magic => formatter.write_str("what the server sent is not Gearman's protocol"),
            Self::Length(length) => write!(formatter, "the server announced a packet of {length} bytes"),
            Self::Arguments(kind) => write!(formatter, "an argument is missing in a packet of kind {kind}"),
        }
    }
}

impl std::error::Error for Malformed {}

/// Appends a request. Every argument but the last ends with a zero byte and must not contain one.
pub(crate) fn put(out: &mut Vec<u8>, kind: u32, arguments: &[&[u8]]) {
    let length =
        arguments.iter().map(|argument| argument.len()).sum::<usize>() + arguments.len().saturating_sub(1);
    out.reserve(HEADER_BYTES + length);
    out.extend_from_slice(REQUEST);
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
    for (index, argument) in arguments.iter().enumerate() {
        if index > 0 {
            out.push(0);
        }
        out.extend_from_slice(argument);
    }
}

/// Takes the first packet off the front; none when it is not all there yet.
pub(crate) fn take(buffer: &mut BytesMut, bytes_max: usize) -> Result<Option<Packet>, Malformed> {
    let Some((header, _)) = buffer.split_first_chunk::<HEADER_BYTES>() else { return Ok(None) };
    let [a, b, c, d, k0, k1, k2, k3, l0, l1, l2, l3] = *header;
    if [a, b, c, d] != *RESPONSE {
        return Err(Malformed::Magic);
    }
    let kind = u32::from_be_bytes([k0, k1, k2, k3]);
    let length = usize::try_from(u32::from_be_bytes([l0, l1, l2, l3])).unwrap_or(usize::MAX);
    if length > bytes_max {
        return Err(Malformed::Length(length));
    }
    if buffer.len() < HEADER_BYTES + length {
        buffer.reserve(HEADER_BYTES + length - buffer.len());
        return Ok(None);
    }
    buffer.advance(HEADER_BYTES);
    Ok(Some(Packet { kind, data: buffer.split_to(length).freeze() }))
}

impl Packet {
    /// Its arguments: `N` of them, the last of which is everything that is left.
    pub(crate) fn arguments<const N: usize>(&self) -> Result<[Bytes; N], Malformed> {
        let mut rest = self.data.clone();
        let mut arguments = [const { Bytes::new() }; N];
        let Some((last, others)) = arguments.split_last_mut() else { return Ok(arguments) };
        for argument in others {
            let end = rest.iter().position(|&byte| byte == 0).ok_or(Malformed::Arguments(self.kind))?;
            *argument = rest.split_to(end);
            rest.advance(1);
        }
        *last = rest;
        Ok(arguments)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn as_response(mut request: Vec<u8>) -> BytesMut {
        request[..4].copy_from_slice(RESPONSE);
        BytesMut::from(&request[..])
    }

    proptest! {
        #[test]
        fn what_was_put_is_taken_however_it_is_cut(
            kind in 0u32..50,
            names in proptest::collection::vec("[a-z:]{0,20}", 2),
            data in proptest::collection::vec(any::<u8>(), 0..300),
            cut in 0usize..400,
        ) {
            let mut out = Vec::new();
            put(&mut out, kind, &[names[0].as_bytes(), names[1].as_bytes(), &data]);
            put(&mut out, kind, &[&data]);
            // Both, the first as the first half of what comes.
            let length = HEADER_BYTES + names[0].len() + names[1].len() + 2 + data.len();
            out[length..length + 4].copy_from_slice(RESPONSE);
            let whole = as_response(out);
            let cut = cut.min(whole.len());
            let mut buffer = BytesMut::from(&whole[..cut]);
            let mut packets = Vec::new();
            while let Some(packet) = take(&mut buffer, 4096).unwrap() {
                packets.push(packet);
            }
            buffer.extend_from_slice(&whole[cut..]);
            while let Some(packet) = take(&mut buffer, 4096).unwrap() {
                packets.push(packet);
            }
            prop_assert_eq!(packets.len(), 2);
            let [first, second, last] = packets[0].arguments::<3>().unwrap();
            prop_assert_eq!(&first[..], names[0].as_bytes());
            prop_assert_eq!(&second[..], names[1].as_bytes());
            prop_assert_eq!(&last[..], &data[..]);
            prop_assert_eq!(&packets[1].data[..], &data[..]);
            prop_assert!(buffer.is_empty());
        }

        #[test]
        fn any_bytes_are_taken_or_refused_and_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut buffer = BytesMut::from(&bytes[..]);
            while let Ok(Some(packet)) = take(&mut buffer, 100) {
                drop(packet.arguments::<4>());
            }
        }
    }

    #[test]
    fn a_length_beyond_the_limit_is_refused_before_it_is_read() {
        let mut buffer = BytesMut::from(&b"\0RES\0\0\0\x1f\xff\xff\xff\xff"[..]);
        assert_eq!(take(&mut buffer, 1 << 20), Err(Malformed::Length(u32::MAX as usize)));
    }
}
