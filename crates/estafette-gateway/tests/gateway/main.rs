//! The gateway from outside: its codec beside another one's, its queues, and its servers over real sockets.

mod builtin;
mod client;
mod differential;
mod queues;
mod scripts;
mod server;
