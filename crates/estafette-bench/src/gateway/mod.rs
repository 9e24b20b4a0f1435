//! What loads a server of WebSocket connections: subscribers that count what reaches them, and one that publishes.
//!
//! Every server is spoken to in the same way: subscribers connect to one path and may send a message first; a publisher
//! connects to another, and what it sends reaches every subscriber. A server is measured by the processor time it
//! spends, since the load runs on the same machine.
//!
//! Reading order: [`load`] (what is done), [`client`] (a connection), [`process`] (a server started, and what it spends).

pub mod client;
pub mod load;
pub mod process;

pub use load::{Job, Sample};
pub use process::{Server, Spec};
