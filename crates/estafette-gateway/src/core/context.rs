//! A connection's context, and the callbacks that wait for a value of it.
//!
//! While a callback waits, the connection's messages are kept, up to a limit; others go on. Any set of the awaited key
//! wakes it, whatever the value.

use std::{collections::VecDeque, rc::Rc, time::Duration};

use serde_json::{Map, Value};

use super::{
    Core,
    application::{Flow, Wake},
    connection::{Connection, Held},
};
use crate::mesh::{CallError, Kind};

impl Core {
    /// Sets one value and wakes who waits for it.
    ///
    /// # Errors
    /// [`CallError::Refused`] when the context would be too large.
    pub(crate) fn set_context_value(
        &self,
        connection: &Rc<Connection>,
        key: &str,
        value: Value,
    ) -> Result<(), CallError> {
        let mut values = connection.context.borrow().clone();
        values.insert(key.to_owned(), value);
        self.replace_context(connection, values)?;
        self.wake_waiting(connection, |waiting| waiting == key);
        Ok(())
    }

    /// Replaces the context and wakes who waits for one of its keys.
    ///
    /// # Errors
    /// [`CallError::Refused`] when it is too large.
    pub(crate) fn set_context(
        &self,
        connection: &Rc<Connection>,
        values: Map<String, Value>,
    ) -> Result<(), CallError> {
        self.replace_context(connection, values)?;
        self.wake_waiting(connection, |waiting| connection.context.borrow().contains_key(waiting));
        Ok(())
    }

    fn replace_context(
        &self,
        connection: &Rc<Connection>,
        values: Map<String, Value>,
    ) -> Result<(), CallError> {
        let size = serde_json::to_vec(&values).map_or(usize::MAX, |json| json.len());
        if size > connection.server.settings.limits.context_max {
            return Err(CallError::Refused("the context is too large".into()));
        }
        *connection.context.borrow_mut() = values;
        Ok(())
    }

    fn wake_waiting(&self, connection: &Rc<Connection>, is_set: impl FnOnce(&str) -> bool) {
        let is_due = connection.held.borrow().as_ref().is_some_and(|held| is_set(&held.key));
        if is_due {
            self.release(connection, Wake::Set);
        }
    }

    /// Lets a held connection go on: its callback first, then the messages that came meanwhile.
    pub(crate) fn release(&self, connection: &Rc<Connection>, wake: Wake) {
        let Some(held) = connection.held.borrow_mut().take() else { return };
        let application = Rc::clone(&connection.server.application);
        let flow = application.resume(self, connection, &held.key, wake);
        self.follow(connection, flow);
        let mut messages = held.messages;
        while let Some((kind, data)) = messages.pop_front() {
            if !connection.is_open() {
                break;
            }
            self.deliver(connection, kind, &data);
        }
        if !connection.is_websocket() && connection.is_open() && !connection.is_held() {
            // What came meanwhile stands in the buffer, not cut into packets yet.
            application.on_bytes(self, connection);
        }
        connection.wake();
    }

    /// Hands a message to the application, or keeps it while the connection is held.
    pub(crate) fn deliver(&self, connection: &Rc<Connection>, kind: Kind, data: &[u8]) {
        if let Some(held) = connection.held.borrow_mut().as_mut() {
            held.bytes += data.len();
            held.messages.push_back((kind, data.to_vec()));
            return;
        }
        let application = Rc::clone(&connection.server.application);
        let flow = application.on_message(self, connection, kind, data);
        self.follow(connection, flow);
    }

    /// Does what a callback's end asks for.
    pub(crate) fn follow(&self, connection: &Rc<Connection>, flow: Flow) {
        let Flow::Wait(key) = flow else { return };
        let wait = connection.server.settings.limits.wait_time.max(Duration::from_secs(1));
        let deadline = self.now().saturating_add(u32::try_from(wait.as_secs()).unwrap_or(u32::MAX));
        let held = Held { key, deadline, messages: VecDeque::new(), bytes: 0 };
        *connection.held.borrow_mut() = Some(Box::new(held));
    }
}
