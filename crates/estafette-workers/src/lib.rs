//! Worker processes of one application: supervised, and talking to each other.
//!
//! ```no_run
//! use std::time::Duration;
//! use estafette_workers::{Context, To, Workers};
//!
//! fn main() -> estafette_core::Result<()> {
//!     Workers::builder(4).name("shop").run(|worker| async move {
//!         worker.on("price", |article: u64, context: Context| async move {
//!             Ok::<_, estafette_core::Error>(format!("article {article} for {}", context.from()))
//!         });
//!         if worker.id() == Some(0) {
//!             let price: String = worker.request("price", &7, To::One(1), Duration::from_secs(1)).await?;
//!             worker.send("price.seen", &price, To::Others).await?;
//!         }
//!         worker.stopping().await;
//!         Ok::<_, estafette_core::Error>(())
//!     })
//! }
//! ```
//!
//! The supervisor starts the same program again for each worker; a worker is a process with one thread. Workers connect to
//! each other directly over Unix stream sockets in a directory that only their user can enter. A connection carries
//! messages and requests one way and replies the other, so a worker that takes nothing more never keeps replies from those
//! who wait for them.
//!
//! Reading order: [`Workers`] starts a group, [`Worker`] is one participant, [`To`] says whom a message is for, [`Group`]
//! steers a group from outside. Inside: `frame`, `lines` and `wire` are the protocol; `pipe` writes, `inbound` and `desk`
//! take what comes, `peer`, `link` and `deliver` bring messages to where they belong; `supervisor` is the rest.
//!
//! Deliberately not here: durability (a message for a worker that dies is gone; use a queue of a transport), any broker, and
//! the command line.

mod address;
mod builder;
mod counters;
mod deliver;
mod desk;
mod directory;
mod endpoint;
mod environment;
mod error;
mod frame;
mod group;
mod inbound;
mod lines;
mod link;
mod listener;
mod local;
mod member;
mod members;
mod outbox;
mod patience;
mod peer;
mod pending;
mod pipe;
mod process;
mod role;
mod settings;
mod socket;
mod status;
mod supervisor;
mod wire;
mod worker;

pub use address::{Address, NAME_BYTES_MAX, To};
pub use builder::{Output, Workers, WorkersBuilder};
pub use counters::Counts;
pub use error::ListenerError;
pub use group::Group;
pub use listener::{Context, IntoReply, Reply};
pub use members::Presence;
pub use settings::{Limits, Restart};
pub use status::{GroupStatus, MemberStatus};
pub use worker::Worker;
