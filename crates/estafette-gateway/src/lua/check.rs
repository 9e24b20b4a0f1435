//! Looks at a script without serving it.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    sync::Arc,
};

use mlua::Value;

use super::{Abi, ScriptSettings, machine::Machine};
use crate::{
    error::{Error, ErrorKind},
    settings::ServerSettings,
};

/// What a script has and uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The callbacks that are there.
    pub callbacks: Vec<String>,
    /// Names of `mix` that are not.
    pub unknown: Vec<Unknown>,
}

/// A name that means nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unknown {
    /// Counted from 1.
    pub line: usize,
    /// Such as `mix.quueue.push`.
    pub name: String,
}

/// Loads the script as a server would, of raw sockets if it cuts packets, and looks its names up.
///
/// # Errors
/// [`ErrorKind::Script`] with file and line, when it does not load or lacks a callback.
pub fn check(file: &Path, abi: Abi) -> Result<Report, Error> {
    let failed =
        |error: &dyn std::fmt::Display| Error::new(ErrorKind::Script(format!("{}: {error}", file.display())));
    let source = fs::read_to_string(file).map_err(|error| failed(&error))?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let settings = if source.contains("protocol_input") {
        ServerSettings::socket(address)
    } else {
        ServerSettings::websocket(address)
    };
    let script = ScriptSettings { abi, reload: None, ..ScriptSettings::new(file) };
    let machine = Machine::new(&script, &Arc::new(settings))?;
    let callbacks = machine.callbacks()?;
    let unknown = names(&source).filter(|(_, name)| !is_there(&machine, name));
    let unknown = unknown.map(|(line, name)| Unknown { line, name: name.to_owned() }).collect();
    Ok(Report { callbacks, unknown })
}

/// Every `mix.…` of the source that is not in a comment of its line.
fn names(source: &str) -> impl Iterator<Item = (usize, &str)> {
    source.lines().enumerate().flat_map(|(number, line)| {
        let code = line.split_once("--").map_or(line, |(code, _)| code);
        code.match_indices("mix.").filter_map(move |(start, _)| {
            let before = code.get(..start)?.chars().next_back();
            if before.is_some_and(|sign| sign.is_alphanumeric() || matches!(sign, '_' | '.' | '"' | '\'')) {
                return None;
            }
            let rest = code.get(start..)?;
            let end = rest.find(|sign: char| !sign.is_alphanumeric() && sign != '_' && sign != '.');
            Some((number + 1, rest.get(..end.unwrap_or(rest.len()))?.trim_end_matches('.')))
        })
    })
}

fn is_there(machine: &Machine, name: &str) -> bool {
    let mut value = Value::Table(machine.lua.globals());
    for part in name.split('.') {
        let Value::Table(table) = &value else { return false };
        value = table.raw_get(part).unwrap_or(Value::Nil);
    }
    !value.is_nil()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_names_are_found_with_their_lines() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("entry.lua");
        let source = "local push = mix.queue.push\nfunction on_message(m)\n  mix.quueue.push('a', {}) -- mix.none\n  \
                      mix.websocket():send(mix.json_encod({}))\nend\n";
        fs::write(&file, source).unwrap();
        let report = check(&file, Abi::V2).unwrap();
        assert_eq!(report.callbacks, ["on_message"]);
        let unknown: Vec<_> =
            report.unknown.iter().map(|unknown| (unknown.line, unknown.name.as_str())).collect();
        assert_eq!(unknown, [(3, "mix.quueue.push"), (4, "mix.json_encod")]);
        fs::write(&file, "function on_message(").unwrap();
        assert!(check(&file, Abi::V2).unwrap_err().to_string().contains("entry.lua:1"));
    }
}
