//! A server driven by a script: which callback is called when, and how a changed script takes over.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    fs,
    rc::Rc,
    sync::Arc,
    time::{Instant, SystemTime},
};

use bytes::Bytes;
use mlua::{Lua, LuaString, Table};

use super::{
    ScriptSettings, connection,
    machine::{Machine, Shared},
};
use crate::{
    core::{
        Core,
        application::{Application, Flow, Wake},
        connection::Connection,
    },
    error::Error,
    mesh::{Kind, Payload},
    settings::ServerSettings,
    stats::{CloseReason, Counters},
    websocket::{close::CloseCode, handshake::Handshake},
};

/// What a file looked like: a change of either is a change.
type Version = Option<(SystemTime, u64)>;

pub(crate) struct Script {
    settings: ScriptSettings,
    server: Arc<ServerSettings>,
    machine: RefCell<Shared>,
    /// Connections whose callback waits, with the version of the script it waits in.
    waiting: RefCell<HashMap<u64, Shared>>,
    version: Cell<Version>,
    looked: Cell<Instant>,
}

/// The result of a callback: 0 done, 1 waits for a key, 2 failed with a message.
type Ended = (u8, Option<LuaString>);

impl Script {
    /// Loads the script.
    ///
    /// # Errors
    /// As [`Machine::new`].
    pub(crate) fn new(settings: ScriptSettings, server: Arc<ServerSettings>) -> Result<Self, Error> {
        let version = version(&settings);
        let machine = Machine::new(&settings, &server)?;
        Ok(Self {
            settings,
            server,
            machine: RefCell::new(Rc::new(machine)),
            waiting: RefCell::default(),
            version: Cell::new(version),
            looked: Cell::new(Instant::now()),
        })
    }

    fn machine(&self) -> Shared {
        Rc::clone(&self.machine.borrow())
    }

    /// Runs a callback and reports how it ended.
    fn call(
        &self,
        core: &Core,
        connection: &Rc<Connection>,
        machine: &Shared,
        call: impl FnOnce(&Machine, &Lua, u64) -> mlua::Result<Ended>,
    ) -> Result<Flow, ()> {
        let number = connection.id.sequence();
        let ended = connection::running(connection, || machine.guard(|| call(machine, &machine.lua, number)));
        match ended {
            Ok((0, _)) => Ok(Flow::Done),
            Ok((1, key)) => {
                self.waiting.borrow_mut().insert(number, Rc::clone(machine));
                Ok(Flow::Wait(key.map(|key| key.to_string_lossy()).unwrap_or_default()))
            }
            Ok((_, problem)) => {
                let problem = problem.map(|problem| problem.to_string_lossy()).unwrap_or_default();
                self.report(core, &problem);
                Err(())
            }
            Err(error) => {
                self.report(core, &error.to_string());
                Err(())
            }
        }
    }

    fn report(&self, core: &Core, problem: &str) {
        Counters::add(&core.counters.script_errors, 1);
        tracing::error!(script = %self.settings.entry.display(), "{problem}");
    }

    /// Takes the script anew if its file has changed; keeps the last good version if the new one does not work.
    fn reload(&self, core: &Core) {
        let version = version(&self.settings);
        if version == self.version.replace(version) {
            return;
        }
        match Machine::new(&self.settings, &self.server) {
            Ok(machine) => {
                self.machine.replace(Rc::new(machine));
                Counters::add(&core.counters.script_reloads, 1);
                tracing::info!(script = %self.settings.entry.display(), "the changed script is in use");
            }
            Err(error) => {
                Counters::add(&core.counters.script_reload_errors, 1);
                tracing::error!(script = %self.settings.entry.display(), %error, "the last good version stays in use");
            }
        }
    }
}

fn version(settings: &ScriptSettings) -> Version {
    let file = fs::metadata(&settings.entry).ok()?;
    Some((file.modified().ok()?, file.len()))
}

fn headers_to_lua(lua: &Lua, handshake: &Handshake) -> mlua::Result<Table> {
    let headers = lua.create_table()?;
    for (name, value) in &handshake.headers {
        headers.raw_set(canonical(name), value.as_str())?;
    }
    Ok(headers)
}

/// `sec-websocket-key` as `Sec-Websocket-Key`: how the reference's scripts look headers up.
fn canonical(name: &str) -> String {
    let mut starts = true;
    let letter = |letter: char| {
        let upper = std::mem::replace(&mut starts, letter == '-');
        if upper { letter.to_ascii_uppercase() } else { letter.to_ascii_lowercase() }
    };
    name.chars().map(letter).collect()
}

fn server_to_lua(lua: &Lua, connection: &Connection, handshake: &Handshake) -> mlua::Result<Table> {
    lua.create_table_from([
        ("Method", "GET".to_owned()),
        ("RequestUri", handshake.target.clone()),
        ("ServerProtocol", "HTTP/1.1".to_owned()),
        ("Host", handshake.host.clone()),
        ("RemoteAddr", connection.peer.to_string()),
    ])
}

impl Application for Script {
    fn on_open(
        &self,
        core: &Core,
        connection: &Rc<Connection>,
        handshake: Option<&Handshake>,
    ) -> Result<(), ()> {
        let flow = self.call(core, connection, &self.machine(), |machine, lua, number| match handshake {
            None => machine.calls.connect.call(number),
            Some(handshake) => {
                let headers = headers_to_lua(lua, handshake)?;
                let server = server_to_lua(lua, connection, handshake)?;
                machine.calls.handshake.call((number, headers, server))
            }
        })?;
        core.follow(connection, flow);
        Ok(())
    }

    fn on_message(&self, core: &Core, connection: &Rc<Connection>, kind: Kind, data: &[u8]) -> Flow {
        let flow = self.call(core, connection, &self.machine(), |machine, lua, number| {
            let kind = if kind == Kind::Text { "text" } else { "binary" };
            machine.calls.message.call((number, kind, lua.create_string(data)?))
        });
        flow.unwrap_or(Flow::Done)
    }

    fn on_bytes(&self, core: &Core, connection: &Rc<Connection>) {
        while connection.is_open() && !connection.is_held() && !connection.buffer.borrow().is_empty() {
            let machine = self.machine();
            let number = connection.id.sequence();
            let input = connection::running(connection, || {
                machine.guard(|| machine.calls.input.call::<(Option<f64>, Option<LuaString>)>(number))
            });
            let there = connection.buffer.borrow().len();
            let length = match input {
                Ok((Some(length), _)) => length,
                Ok((None, problem)) => {
                    self.report(core, &problem.map(|problem| problem.to_string_lossy()).unwrap_or_default());
                    return core.close(connection, CloseReason::Script, CloseCode::INTERNAL, "");
                }
                Err(error) => {
                    self.report(core, &error.to_string());
                    return core.close(connection, CloseReason::Script, CloseCode::INTERNAL, "");
                }
            };
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole and checked")]
            let length = match length {
                -1.0 => return core.close(connection, CloseReason::Protocol, CloseCode::PROTOCOL, ""),
                0.0 => return,
                length if length >= 1.0 && length <= there as f64 => length as usize,
                _ => {
                    self.report(core, "protocol_input returned more than there is");
                    return core.close(connection, CloseReason::Script, CloseCode::INTERNAL, "");
                }
            };
            let packet: Vec<u8> = connection.buffer.borrow_mut().drain(..length).collect();
            Counters::add(&core.counters.messages_in, 1);
            let flow = self.call(core, connection, &machine, |machine, lua, number| {
                machine.calls.packet.call((number, lua.create_string(&packet)?))
            });
            core.follow(connection, flow.unwrap_or(Flow::Done));
        }
        let mut buffer = connection.buffer.borrow_mut();
        if buffer.is_empty() {
            // An idle connection holds no buffers.
            *buffer = Vec::new();
        }
    }

    fn resume(&self, core: &Core, connection: &Rc<Connection>, _: &str, wake: Wake) -> Flow {
        let Some(machine) = self.waiting.borrow_mut().remove(&connection.id.sequence()) else {
            return Flow::Done;
        };
        let wake = match wake {
            Wake::Set => "set",
            Wake::TimedOut => "timeout",
            Wake::Closed => "closed",
        };
        let flow = self
            .call(core, connection, &machine, |machine, _, number| machine.calls.resume.call((number, wake)));
        flow.unwrap_or(Flow::Done)
    }

    fn on_close(&self, core: &Core, connection: &Rc<Connection>, reason: CloseReason) {
        let problem = (reason != CloseReason::Peer && reason != CloseReason::Closed).then(|| reason.name());
        let ended = self.call(core, connection, &self.machine(), |machine, _, number| {
            machine.calls.close.call((number, problem))
        });
        // Reported already; and nothing can wait for a connection that is gone.
        if let Ok(Flow::Wait(_)) = ended {
            self.waiting.borrow_mut().remove(&connection.id.sequence());
        }
    }

    fn encode(&self, core: &Core, connection: &Rc<Connection>, payload: &Payload) -> Result<Bytes, String> {
        let machine = self.machine();
        let number = connection.id.sequence();
        let encoded = connection::running(connection, || {
            machine.guard(|| {
                let data = machine.lua.create_string(&payload.data)?;
                machine.calls.encode.call::<(Option<LuaString>, Option<LuaString>)>((number, data))
            })
        });
        let problem = match encoded {
            Ok((Some(bytes), _)) => return Ok(Bytes::copy_from_slice(&bytes.as_bytes())),
            Ok((None, problem)) => problem.map(|problem| problem.to_string_lossy()).unwrap_or_default(),
            Err(error) => error.to_string(),
        };
        self.report(core, &problem);
        Err(problem)
    }

    fn on_tick(&self, core: &Core) {
        let Some(every) = self.settings.reload else { return };
        if self.looked.get().elapsed() >= every {
            self.looked.set(Instant::now());
            self.reload(core);
        }
    }
}
