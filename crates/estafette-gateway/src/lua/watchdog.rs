//! Stops a script's callback that takes too long.
//!
//! A hook in every callback would cost the JIT its use. So a thread looks at each machine now and then, and sets the hook
//! only in one whose callback is over its time; it stays set until control is back with the host, because a script
//! can catch one error and go on.
//!
//! The only unsafe code of this crate: setting a hook in a machine that runs on another thread, which `lua_sethook` is
//! made for (it may be called from a signal handler), and which mlua does not offer.
#![allow(unsafe_code)]

use std::{
    ptr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use mlua::{Lua, ffi};

/// How often running callbacks are looked at.
const LOOK: Duration = Duration::from_millis(10);

/// One machine, as the watchdog sees it.
struct Watched {
    /// Odd while a callback runs.
    turn: AtomicU64,
    is_armed: AtomicBool,
    /// Null once the machine is gone.
    state: Mutex<State>,
}

struct State(*mut ffi::lua_State);

// SAFETY: the pointer is used under the mutex only, and set to null under it before the machine is dropped. What it is
// used for, `lua_sethook`, may interrupt the running machine at any place.
unsafe impl Send for State {}

/// Watches one machine; ends with it.
pub(crate) struct Watchdog {
    watched: Arc<Watched>,
    thread: thread::Thread,
}

extern "C-unwind" fn stop(state: *mut ffi::lua_State, _: *mut ffi::lua_Debug) {
    // SAFETY: called by the machine itself, between two of its instructions, where an error may be raised.
    unsafe { ffi::luaL_error(state, c"the callback took longer than it may".as_ptr()) };
}

const MASK: std::ffi::c_int = ffi::LUA_MASKCOUNT | ffi::LUA_MASKCALL | ffi::LUA_MASKRET | ffi::LUA_MASKLINE;

impl Watched {
    fn arm(&self, turn: u64) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        self.is_armed.store(true, Ordering::SeqCst);
        if state.0.is_null() || self.turn.load(Ordering::SeqCst) != turn {
            self.is_armed.store(false, Ordering::SeqCst);
            return;
        }
        // SAFETY: the machine is alive while the mutex is held, and its callback has not ended: whoever ends it sees
        // `is_armed` and takes the mutex first.
        unsafe { ffi::lua_sethook(state.0, Some(stop), MASK, 1) };
    }

    fn disarm(&self) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        self.is_armed.store(false, Ordering::SeqCst);
        if !state.0.is_null() {
            // SAFETY: as in `arm`; this is the machine's own thread.
            unsafe { ffi::lua_sethook(state.0, None, 0, 0) };
        }
    }

    /// Looks until the machine is gone.
    fn watch(&self, budget: Duration) {
        let (mut seen, mut since) = (0, Instant::now());
        loop {
            if self.state.lock().unwrap_or_else(PoisonError::into_inner).0.is_null() {
                return;
            }
            let turn = self.turn.load(Ordering::SeqCst);
            if turn != seen {
                (seen, since) = (turn, Instant::now());
            } else if turn % 2 == 1 && since.elapsed() >= budget {
                // Again at every look: the machine may have changed the hook itself at the same moment.
                self.arm(turn);
            }
            thread::park_timeout(LOOK.min(budget));
        }
    }
}

impl Watchdog {
    /// Starts to watch `lua`, whose callbacks have `budget` of time each.
    ///
    /// # Errors
    /// The system's, when no thread can be started.
    pub(crate) fn new(lua: &Lua, budget: Duration) -> std::io::Result<Self> {
        let mut pointer = ptr::null_mut();
        // SAFETY: nothing is done with the stack; the main state lives as long as the machine.
        let taken = unsafe { lua.exec_raw::<()>((), |state| pointer = state) };
        taken.map_err(|error| std::io::Error::other(error.to_string()))?;
        let watched = Arc::new(Watched {
            turn: AtomicU64::new(0),
            is_armed: AtomicBool::new(false),
            state: Mutex::new(State(pointer)),
        });
        let watching = Arc::clone(&watched);
        let builder = thread::Builder::new().name("gateway-watchdog".into());
        let handle = builder.spawn(move || watching.watch(budget))?;
        Ok(Self { watched, thread: handle.thread().clone() })
    }

    /// Runs a callback under watch. Not to be nested.
    pub(crate) fn guard<T>(&self, callback: impl FnOnce() -> T) -> T {
        self.watched.turn.fetch_add(1, Ordering::SeqCst);
        let result = callback();
        self.watched.turn.fetch_add(1, Ordering::SeqCst);
        if self.watched.is_armed.load(Ordering::SeqCst) {
            self.watched.disarm();
        }
        result
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.watched.state.lock().unwrap_or_else(PoisonError::into_inner).0 = ptr::null_mut();
        self.thread.unpark();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endless_loop_ends_even_when_errors_are_caught() {
        let lua = Lua::new();
        let watchdog = Watchdog::new(&lua, Duration::from_millis(50)).unwrap();
        let scripts = [
            "while true do end",
            "while true do pcall(function() while true do end end) end",
            "for i = 1, 10 do end",
        ];
        let ended = scripts.map(|script| watchdog.guard(|| lua.load(script).exec().is_err()));
        assert_eq!(ended, [true, true, false]);
        let compiled = lua.load("local n = 0; for i = 1, 1e6 do n = n + i end; while true do n = n + 1 end");
        assert!(watchdog.guard(|| compiled.exec().is_err()));
    }
}
