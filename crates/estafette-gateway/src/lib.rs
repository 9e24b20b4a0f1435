//! The gateway: users' long-lived connections, sent to and published to from backends in any language.
//!
//! Reading order: [`mesh`] (what the rest of a program sees of the connections), [`queues`], [`stats`].

mod api;
pub mod mesh;
pub mod queues;
pub mod stats;
pub mod websocket;
