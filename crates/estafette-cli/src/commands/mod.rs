//! The commands, a file each: `Arguments` and what it does, `run`.

pub(crate) mod bench;
pub(crate) mod bridge;
pub(crate) mod completions;
pub(crate) mod conformance;
pub(crate) mod consume;
pub(crate) mod dead;
pub(crate) mod declare;
pub(crate) mod delete;
pub(crate) mod demo;
pub(crate) mod doctor;
#[cfg(feature = "gateway")]
pub(crate) mod gateway;
#[cfg(feature = "gateway")]
pub(crate) mod lua;
pub(crate) mod migrate;
pub(crate) mod outbox;
pub(crate) mod publish;
pub(crate) mod queues;
pub(crate) mod workers;
