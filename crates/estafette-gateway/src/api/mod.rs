//! The management API: what backends in any language speak, over HTTP and WebSocket.
//!
//! Two addresses: **management** (send, publish, consume, call functions of connections) and **discovery** (which nodes
//! there are). Published clients and the documents of the reference are spoken to as they expect; `docs/gateway-api.md`
//! says how.
//!
//! Reading order: `settings`, `access` (users); `dialect` (what requests mean, without I/O), `execute` (doing it); `server`
//! (addresses), `routes` (paths), `session` and `outbox` (WebSockets); `nodes`, `metrics` (what is told).

mod access;
mod dialect;
mod execute;
mod metrics;
mod nodes;
mod outbox;
mod routes;
mod server;
mod session;
mod settings;

pub use access::{Roles, User};
pub use nodes::{Node, Nodes};
pub use server::{Api, ApiHandle};
pub use settings::ApiSettings;
