//! The loop from delivery to handler.
//!
//! A [`Consumer`] takes deliveries from one queue, runs a handler for each and settles them: it counts attempts against the
//! limit, applies the retry policy, limits time and concurrency, catches panics, extends leases, and stops gracefully. It
//! knows no transport beyond the core traits.
//!
//! Reading order: `builder` (what can be set), `handler` and `router` (the user's functions), `verdict` and `decide` (what
//! becomes of a message), `pump` (the loop), `intake`, `running` and `settling` (its parts), `stop` (how it ends).
//!
//! Middleware is [tower]: a layer wraps a service from [`Context`] to [`Verdict`]. Settling stays outside the stack, so that
//! no layer can lose a message.
//!
//! [tower]: https://docs.rs/tower

mod bridge;
mod builder;
mod context;
mod decide;
mod deduplicate;
mod handler;
mod heartbeat;
mod intake;
mod pump;
mod request;
mod router;
mod running;
mod settling;
mod start;
mod stop;
mod summary;
mod trace;
mod verdict;

pub use bridge::Bridge;
pub use builder::Consumer;
pub use context::Context;
pub use deduplicate::Deduplicate;
pub use handler::Handler;
pub use request::{REPLY_ERROR_HEADER, Requester};
pub use router::BoxHandler;
pub use summary::{StopReason, Summary};
pub use trace::traceparent;
pub use verdict::{IntoVerdict, Verdict};
