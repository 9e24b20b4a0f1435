//! One Lua state with one version of a script in it.

use std::{
    cell::Cell,
    fs,
    path::{Component, Path, PathBuf},
    rc::Rc,
    sync::{Arc, OnceLock},
    time::Duration,
};

use mlua::{Function, Lua, LuaOptions, LuaString, MultiValue, StdLib, Table, Value};

use super::{Abi, ScriptSettings, connection, mix, watchdog::Watchdog};
use crate::{
    error::{Error, ErrorKind},
    settings::{Protocol, ServerSettings},
};

const PRELUDE: &str = include_str!("prelude.lua");

/// How long a loop would run that cannot be stopped, about.
const TRIAL: Duration = Duration::from_secs(1);

/// The largest file that `require` reads.
const MODULE_MAX: u64 = 4 << 20;

/// What the host calls, by the names of `prelude.lua`.
pub(crate) struct Calls {
    pub(crate) message: Function,
    pub(crate) handshake: Function,
    pub(crate) connect: Function,
    pub(crate) close: Function,
    pub(crate) resume: Function,
    pub(crate) input: Function,
    pub(crate) packet: Function,
    pub(crate) encode: Function,
    callbacks: Function,
}

pub(crate) struct Machine {
    pub(crate) calls: Calls,
    memory_max: usize,
    /// Memory in use from which everything is collected after a callback.
    collect_at: Cell<usize>,
    depth: Cell<u32>,
    // Before the state itself, so that it is dropped first.
    watchdog: Watchdog,
    pub(crate) lua: Lua,
}

fn failed(error: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Script(error.to_string()))
}

impl Machine {
    /// A state with the script loaded, its callbacks looked for, and its `init` called.
    ///
    /// # Errors
    /// [`ErrorKind::Script`] with file and line.
    pub(crate) fn new(script: &ScriptSettings, server: &Arc<ServerSettings>) -> Result<Self, Error> {
        let source = fs::read_to_string(&script.entry)
            .map_err(|error| failed(format!("{}: {error}", script.entry.display())))?;
        let lua = new_state().map_err(failed)?;
        let calls = Self::prepare(&lua, script, server).map_err(failed)?;
        let watchdog = Watchdog::new(&lua, script.time_max).map_err(failed)?;
        let get = |name: &str| calls.get::<Function>(name).map_err(failed);
        let machine = Self {
            calls: Calls {
                message: get("message")?,
                handshake: get("handshake")?,
                connect: get("connect")?,
                close: get("close")?,
                resume: get("resume")?,
                input: get("input")?,
                packet: get("packet")?,
                encode: get("encode")?,
                callbacks: get("callbacks")?,
            },
            memory_max: script.memory_max,
            collect_at: Cell::new(script.memory_max / 2),
            depth: Cell::new(0),
            watchdog,
            lua,
        };
        machine.lua.set_memory_limit(script.memory_max).map_err(failed)?;
        let name =
            script.entry.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        if source.starts_with('\u{1b}') {
            return Err(failed("the file is bytecode, which is not loaded"));
        }
        let chunk = machine.lua.load(source).set_name(format!("@{name}"));
        machine.guard(|| chunk.exec()).map_err(failed)?;
        machine.check(server.protocol)?;
        let init = get("init")?;
        match machine.guard(|| init.call::<(u8, Option<String>)>(())).map_err(failed)? {
            (2, problem) => Err(failed(problem.unwrap_or_default())),
            _ => Ok(machine),
        }
    }

    fn prepare(lua: &Lua, script: &ScriptSettings, server: &Arc<ServerSettings>) -> mlua::Result<Table> {
        let host = lua.create_table()?;
        host.set("is_stoppable", is_stoppable())?;
        host.set("abi", if script.abi == Abi::V1 { 1 } else { 2 })?;
        let directory = script.entry.parent().map_or_else(PathBuf::new, Path::to_path_buf);
        host.set("module", lua.create_function(move |lua, name: LuaString| module(lua, &directory, &name))?)?;
        connection::register(lua, &host, script.abi)?;
        lua.globals().set("mix", mix::table(lua, server)?)?;
        lua.globals().set("print", mix::print(lua)?)?;
        lua.load(PRELUDE).set_name("=prelude").call(host)
    }

    /// The callbacks that the script has.
    ///
    /// # Errors
    /// When the state cannot say.
    pub(crate) fn callbacks(&self) -> Result<Vec<String>, Error> {
        self.guard(|| self.calls.callbacks.call(())).map_err(failed)
    }

    fn check(&self, protocol: Protocol) -> Result<(), Error> {
        let names = self.callbacks()?;
        let needed: &[&str] = match protocol {
            Protocol::WebSocket => &["on_message"],
            Protocol::Socket => &["on_message", "protocol_input", "protocol_decode"],
        };
        match needed.iter().find(|name| !names.iter().any(|there| there == *name)) {
            Some(missing) => Err(failed(format!("the script has no function {missing}"))),
            None => Ok(()),
        }
    }

    /// Calls into the state under its budgets of time and memory. A call within a call is under the outer one's.
    pub(crate) fn guard<T>(&self, call: impl FnOnce() -> mlua::Result<T>) -> mlua::Result<T> {
        if self.depth.get() > 0 {
            return call();
        }
        self.depth.set(1);
        let result = self.watchdog.guard(call);
        self.depth.set(0);
        // A script can catch the failure of an allocation: that all went well does not say that memory is left.
        if result.is_err() || self.lua.used_memory() > self.collect_at.get() {
            self.collect();
        }
        result
    }

    /// Collects all garbage: after an allocation failed, nothing works until then.
    pub(crate) fn collect(&self) {
        if let Err(error) = self.lua.gc_collect() {
            tracing::warn!(%error, "a script's memory cannot be collected");
        }
        // Halfway from what is in use to the limit, so that a script that keeps much does not collect all the time.
        let used = self.lua.used_memory().min(self.memory_max);
        self.collect_at.set((self.memory_max / 2).max(used + (self.memory_max - used) / 2));
    }
}

/// A state with the libraries that the prelude then makes safe. Without `JIT` nothing would be compiled.
fn new_state() -> mlua::Result<Lua> {
    let libraries = StdLib::TABLE
        | StdLib::STRING
        | StdLib::MATH
        | StdLib::BIT
        | StdLib::PACKAGE
        | StdLib::OS
        | StdLib::JIT;
    Lua::new_with(libraries, LuaOptions::default())
}

/// Whether this build of LuaJIT can be stopped in a compiled loop, tried out once: one that was built without what
/// `.cargo/config.toml` asks for cannot, and goes without the compiler.
fn is_stoppable() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(|| {
        let stopped = new_state().and_then(|lua| {
            let watchdog = Watchdog::new(&lua, TRIAL / 20).map_err(mlua::Error::external)?;
            // Ends by itself after a second or two, should nothing stop it.
            let trial = lua.load("local n = 0; for i = 1, 2e9 do n = n + i end");
            Ok(watchdog.guard(|| trial.exec().is_err()))
        });
        let stopped = stopped.unwrap_or(false);
        if !stopped {
            tracing::warn!(
                "this build of LuaJIT cannot be stopped in a compiled loop: scripts are not compiled"
            );
        }
        stopped
    })
}

/// The source and the name of a module: `a.b` or `a/b` beside the script, with `.lua` added; nil and a reason if there
/// is none. Names that lead out of the directory are refused.
fn module(lua: &Lua, directory: &Path, name: &LuaString) -> mlua::Result<(Value, String)> {
    let refused = |reason: &str| Ok((Value::Nil, reason.to_owned()));
    let Ok(name) = name.to_str() else { return refused("its name is not UTF-8") };
    let name: &str = &name;
    let name = name.strip_suffix(".lua").unwrap_or(name);
    let relative = PathBuf::from(name.replace('.', "/") + ".lua");
    if !relative.components().all(|part| matches!(part, Component::Normal(_))) {
        return refused("its name leads out of the script's directory");
    }
    if let Some(source) = shipped(name).filter(|_| !directory.join(&relative).exists()) {
        return Ok((Value::String(lua.create_string(source)?), relative.display().to_string()));
    }
    let path = directory.join(&relative);
    let is_inside = match (path.canonicalize(), directory.canonicalize()) {
        (Ok(path), Ok(directory)) => path.starts_with(directory),
        _ => return refused("there is no such file beside the script"),
    };
    if !is_inside || fs::metadata(&path).is_ok_and(|file| file.len() > MODULE_MAX) {
        return refused("the file is too large or elsewhere");
    }
    match fs::read(&path) {
        Ok(source) => Ok((Value::String(lua.create_string(source)?), relative.display().to_string())),
        Err(error) => refused(&error.to_string()),
    }
}

/// The modules that come with the gateway; a file of the same name beside the script goes before.
fn shipped(name: &str) -> Option<&'static str> {
    Some(match name {
        "prettyprint" => include_str!("../../lua/prettyprint.lua"),
        "protocols/text" | "protocols.text" => include_str!("../../lua/text.lua"),
        "protocols/jsonrpc" | "protocols.jsonrpc" => include_str!("../../lua/jsonrpc.lua"),
        "protocols/length" | "protocols.length" => include_str!("../../lua/length.lua"),
        "protocols/websocket" | "protocols.websocket" => include_str!("../../lua/websocket.lua"),
        "bit" => "return bit",
        _ => return None,
    })
}

/// Nil and the reason: how the functions of `mix` fail.
pub(crate) fn nil_and(lua: &Lua, reason: impl std::fmt::Display) -> mlua::Result<MultiValue> {
    let reason = lua.create_string(reason.to_string())?;
    Ok(MultiValue::from_iter([Value::Nil, Value::String(reason)]))
}

pub(crate) type Shared = Rc<Machine>;

#[cfg(test)]
mod tests {
    #[test]
    fn this_build_stops_compiled_loops() {
        assert!(super::is_stoppable());
    }
}
