//! Scripts: servers driven by Lua, in LuaJIT.
//!
//! Reading order: [`script`] (a server's application: which callback when, reloading), [`machine`] (one Lua state: its
//! sandbox and its budgets), `prelude.lua` (what runs in it before the script), [`connection`] and [`mix`] (what a script
//! can call), [`encoding`] and [`pack`] (the functions without effects), [`json`] (values between Lua and JSON), [`watchdog`].

pub mod check;
mod connection;
mod encoding;
pub(crate) mod json;
pub(crate) mod machine;
mod mix;
mod pack;
pub(crate) mod script;
mod watchdog;

use std::{path::PathBuf, time::Duration};

/// Which shape the callbacks have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Abi {
    /// Callbacks get the connection as an object, after their other arguments.
    V1,
    /// Callbacks get the connection's number; the object comes from `mix.websocket()`.
    #[default]
    V2,
}

/// A script and what it may take.
#[derive(Debug, Clone)]
pub struct ScriptSettings {
    /// The file; `require` finds others beside it.
    pub entry: PathBuf,
    /// The shape of its callbacks.
    pub abi: Abi,
    /// How often the file is looked at for changes; never if `None`. 10 s by default.
    pub reload: Option<Duration>,
    /// Time of one callback; 500 ms by default.
    pub time_max: Duration,
    /// Memory of one core's machine; 128 MiB by default.
    pub memory_max: usize,
}

impl ScriptSettings {
    /// The script `entry` with the defaults.
    #[must_use]
    pub fn new(entry: impl Into<PathBuf>) -> Self {
        Self {
            entry: entry.into(),
            abi: Abi::default(),
            reload: Some(Duration::from_secs(10)),
            time_max: Duration::from_millis(500),
            memory_max: 128 << 20,
        }
    }
}
