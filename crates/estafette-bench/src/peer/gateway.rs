//! Other servers of WebSocket connections.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::runs;
use crate::gateway::{Server, Spec};

/// Another server.
#[derive(Clone)]
pub struct Peer {
    /// What it is called in the table.
    pub name: &'static str,
    /// How it is spoken to.
    pub spec: Spec,
    check: (&'static str, [&'static str; 2]),
    /// How it is installed.
    pub installation: &'static str,
    program: &'static str,
    arguments: &'static [&'static str],
    script: &'static str,
    file: &'static str,
}

/// The servers compared with.
pub const PEERS: [Peer; 2] = [
    Peer {
        name: "Node's ws",
        spec: Spec::PLAIN,
        check: ("node", ["-e", "require('ws')"]),
        installation: "npm install ws, and NODE_PATH set to its node_modules",
        program: "node",
        arguments: &["{file}", "{port}"],
        script: include_str!("../../peers/gateway.js"),
        file: "gateway.js",
    },
    Peer {
        name: "nchan",
        spec: Spec::PLAIN,
        check: ("sh", ["-c", "test -e /usr/lib/nginx/modules/ngx_nchan_module.so"]),
        installation: "apt-get install nginx libnginx-mod-nchan",
        program: "nginx",
        arguments: &["-c", "{file}", "-p", "{folder}"],
        script: include_str!("../../peers/nchan.conf"),
        file: "nchan.conf",
    },
];

impl Peer {
    /// Whether it can be run here.
    #[must_use]
    pub fn is_installed(&self) -> bool {
        let (program, arguments) = &self.check;
        runs(program, arguments)
    }

    /// Starts it with its files in `directory`.
    ///
    /// # Errors
    ///
    /// When it does not start.
    pub fn start(&self, directory: &Path) -> anyhow::Result<Server> {
        let folder = fs::canonicalize(directory)?.display().to_string();
        let file = format!("{folder}/{}", self.file);
        Server::start(|port| {
            let filled = |text: &str| {
                text.replace("{port}", &port.to_string())
                    .replace("{file}", &file)
                    .replace("{folder}", &folder)
            };
            fs::write(&file, filled(self.script))?;
            let mut command = Command::new(self.program);
            command.args(self.arguments.iter().map(|argument| filled(argument)));
            Ok(command)
        })
    }
}
