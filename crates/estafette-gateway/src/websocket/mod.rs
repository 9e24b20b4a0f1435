//! RFC 6455 without I/O: bytes in, events out; messages in, bytes out.
//!
//! Reading order: [`frame`] (one frame's header, masking, encoding), [`utf8`] (text that arrives in pieces), [`close`]
//! (close codes), [`decoder`] (bytes to events, with every limit), [`handshake`] (the HTTP request that starts it),
//! [`accept`] (its answer). No extension is negotiated, so the reserved bits must be zero.

pub mod accept;
pub mod close;
pub mod decoder;
pub mod frame;
pub mod handshake;
pub mod utf8;
