//! The checks, a module per group and a function per behaviour of the list.
//!
//! Lower bounds of time are exact; upper bounds are generous, since a busy machine is no violation. Where a check means
//! something only when the machine was quick enough, it is tried again with a longer lease.

#![allow(
    clippy::indexing_slicing,
    reason = "checks look at what they made themselves; a panic would be reported as a violation"
)]

pub(crate) mod admin;
pub(crate) mod attempts;
pub(crate) mod dead_letters;
pub(crate) mod delay_expiry;
pub(crate) mod leases;
pub(crate) mod lifecycle;
pub(crate) mod order;
pub(crate) mod processes;
pub(crate) mod publish;
pub(crate) mod receive;
pub(crate) mod settlement;
pub(crate) mod subscriptions;
