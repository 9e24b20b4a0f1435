//! AMQP 0-9-1 as bytes: frames, methods, tables, properties. No I/O.
//!
//! Only what this transport says and hears. Facts: the specification "AMQP 0-9-1", RabbitMQ's extensions (confirms,
//! `basic.nack`, `connection.blocked`, exchange-to-exchange bindings) and its errata for the types of table fields.
//!
//! Reading order: `frame`, `reading`, `writing`, `fields`, `properties`, `request` (what we say), `method` (what we hear).

pub(crate) mod fields;
pub(crate) mod frame;
pub(crate) mod method;
pub(crate) mod properties;
pub(crate) mod reading;
pub(crate) mod request;
pub(crate) mod writing;

pub(crate) use frame::{Frame, Kind};
pub(crate) use method::Method;
pub(crate) use properties::Properties;
pub(crate) use reading::{Malformed, Reader};

#[cfg(test)]
mod tests;
