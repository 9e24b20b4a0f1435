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

/// Reads bytes as a request and writes its answer: for the fuzz target alone.
#[cfg(fuzzing)]
pub fn fuzz(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    for last in [dialect::Dialect::Short, dialect::Dialect::Long] {
        let request = dialect::parse(text, last);
        let outcome = request.operation.map(|_| dialect::Outcome::Done);
        let answer = dialect::answer(request.dialect, &request.id, &outcome);
        assert!(serde_json::from_str::<serde_json::Value>(&answer).is_ok(), "{answer}");
    }
}
