//! The configuration file: YAML with the reference's keys, to which ours are added.
//!
//! Keys that mean nothing here are left out: a file of the reference has some for parts that this gateway does not need,
//! such as its registry.

mod limits;
#[cfg(test)]
mod tests;

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use serde::Deserialize;

use crate::{
    api::{ApiSettings, Roles, User},
    builtin::{BuiltinSettings, Grants, Key},
    error::{Error, ErrorKind},
    gateway::{Builder, Gateway, Service},
    lua::{Abi, ScriptSettings},
    queues::QueueLimits,
    settings::{Protocol, ServerSettings},
    tls,
};
use limits::LimitKeys;

/// What a configuration file says, checked.
#[derive(Debug)]
pub struct Config {
    /// The node's name and number.
    pub node: (String, u16),
    /// Threads; `None` is one per core of the machine.
    pub cores: Option<usize>,
    /// How long stopping may take.
    pub grace: Duration,
    /// How much the queues hold.
    pub queues: QueueLimits,
    /// Servers, each with its script and its TLS.
    pub servers: Vec<ServerConfig>,
    /// The management API.
    pub api: ApiSettings,
}

/// One server of the file.
#[derive(Debug)]
pub struct ServerConfig {
    /// Its address and limits.
    pub settings: ServerSettings,
    /// What answers its connections.
    pub service: ServiceConfig,
    /// Its certificate and key, PEM files.
    pub tls: Option<(PathBuf, PathBuf)>,
}

/// What answers a server's connections.
#[derive(Debug)]
pub enum ServiceConfig {
    /// A script: the server has an `entry`.
    Script(ScriptSettings),
    /// The built-in protocol: it has none.
    Builtin(BuiltinSettings),
}

#[derive(Deserialize)]
struct File {
    engine: Engine,
    #[serde(default)]
    center: Center,
    #[serde(default)]
    access: Access,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Engine {
    #[serde(default)]
    servers: Vec<Server>,
    #[serde(default)]
    luavm: LuaVm,
    #[serde(default)]
    api_server: Address,
    #[serde(default)]
    node: Node,
    cores: Option<usize>,
    grace_period: Option<u64>,
}

#[derive(Deserialize, Default)]
struct Node {
    name: Option<String>,
    number: Option<u16>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct Center {
    #[serde(default)]
    api_server: Address,
}

#[derive(Deserialize, Default)]
struct Address {
    port: Option<u16>,
    bind: Option<String>,
    advertise: Option<String>,
}

#[derive(Deserialize, Default)]
struct Access {
    #[serde(default)]
    users: Vec<AccessUser>,
}

#[derive(Deserialize)]
struct AccessUser {
    username: String,
    password: String,
    #[serde(default)]
    roles: Vec<String>,
    host: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct LuaVm {
    #[serde(default)]
    queue: Queue,
    memory_max: Option<usize>,
    time_max: Option<u64>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct Queue {
    topic_size: Option<usize>,
    max_topics: Option<usize>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Server {
    port: u16,
    bind: Option<String>,
    protocol: String,
    #[serde(default)]
    options: Vec<ServerOption>,
    entry: Option<PathBuf>,
    byte_code_expires: Option<u64>,
    read_timeout: Option<u64>,
    write_timeout: Option<u64>,
    abi: Option<u8>,
    #[serde(default)]
    protocols: Vec<String>,
    #[serde(default)]
    origins: Vec<String>,
    tls: Option<Tls>,
    #[serde(default)]
    limits: LimitKeys,
    auth: Option<Auth>,
    #[serde(default)]
    anonymous: Grants,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Auth {
    secret: Option<String>,
    public_key: Option<PathBuf>,
    #[serde(default)]
    required: bool,
}

#[derive(Deserialize)]
struct ServerOption {
    name: String,
    value: String,
}

#[derive(Deserialize)]
struct Tls {
    cert: PathBuf,
    key: PathBuf,
}

fn refused(reason: impl Into<String>) -> Error {
    Error::new(ErrorKind::Config(reason.into()))
}

impl Config {
    /// Reads a file. Paths in it are looked for where the program runs, beside the file, and one directory above it.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] with what is wrong and where.
    pub fn read(file: &Path) -> Result<Self, Error> {
        let text = std::fs::read_to_string(file).map_err(|error| {
            Error::with(ErrorKind::Config(format!("{} cannot be read", file.display())), error)
        })?;
        Self::parse(&text, file.parent().unwrap_or(Path::new(".")))
    }

    /// As [`Config::read`], from the text of a file in `directory`.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] with what is wrong and where.
    pub fn parse(text: &str, directory: &Path) -> Result<Self, Error> {
        let file: File = serde_saphyr::from_str(text).map_err(|error| refused(error.to_string()))?;
        let engine = file.engine;
        let defaults = QueueLimits::default();
        let queue = &engine.luavm.queue;
        let queues = QueueLimits {
            messages_max: queue.topic_size.unwrap_or(defaults.messages_max),
            queues_max: queue.max_topics.unwrap_or(defaults.queues_max),
            ..defaults
        };
        let api = api(&engine.api_server, &file.center.api_server, file.access)?;
        let servers = engine.servers.into_iter().map(|server| server.check(&engine.luavm, directory));
        let node = (engine.node.name.unwrap_or_else(|| "n1".into()), engine.node.number.unwrap_or(1));
        if node.1 > crate::ConnectionId::NODE_MAX {
            return Err(refused("engine.node.number is larger than 1023"));
        }
        Ok(Self {
            node,
            cores: engine.cores,
            grace: Duration::from_secs(engine.grace_period.unwrap_or(30)),
            queues,
            servers: servers.collect::<Result<_, _>>()?,
            api,
        })
    }

    /// A gateway that is what the file says; the API is started beside it, from [`Config::api`].
    ///
    /// # Errors
    /// [`ErrorKind::Tls`] when a certificate or a key cannot be used.
    pub fn builder(&self) -> Result<Builder, Error> {
        let mut builder = Gateway::builder()
            .node(self.node.0.clone(), self.node.1)
            .grace(self.grace)
            .queues(self.queues.clone());
        if let Some(cores) = self.cores {
            builder = builder.cores(cores);
        }
        for server in &self.servers {
            let service = match &server.service {
                ServiceConfig::Script(script) => Service::script(script.clone()),
                ServiceConfig::Builtin(builtin) => Service::builtin(builtin.clone()),
            };
            builder = builder.serve(server.settings.clone(), service);
            if let Some((certificate, key)) = &server.tls {
                builder = builder.tls(Arc::new(tls::config(certificate, key)?));
            }
        }
        Ok(builder)
    }
}

fn api(management: &Address, discovery: &Address, access: Access) -> Result<ApiSettings, Error> {
    let users = access.users.into_iter().map(|user| {
        let has = |role: &str| user.roles.is_empty() || user.roles.iter().any(|there| there == role);
        let roles = Roles { read: has("read"), write: has("write") };
        User {
            username: user.username,
            password: user.password,
            roles,
            host: user.host.unwrap_or_else(|| "*".into()),
        }
    });
    Ok(ApiSettings {
        management: Some(address(
            management.bind.as_deref(),
            management.port.unwrap_or(6789),
            Ipv4Addr::LOCALHOST,
        )?),
        discovery: Some(address(
            discovery.bind.as_deref(),
            discovery.port.unwrap_or(6787),
            Ipv4Addr::LOCALHOST,
        )?),
        advertise: management.advertise.clone(),
        users: users.collect(),
        ..ApiSettings::default()
    })
}

fn address(bind: Option<&str>, port: u16, otherwise: Ipv4Addr) -> Result<SocketAddr, Error> {
    let ip = match bind {
        None => IpAddr::V4(otherwise),
        Some("localhost") => IpAddr::V4(Ipv4Addr::LOCALHOST),
        Some(text) => text
            .parse()
            .map_err(|error| Error::with(ErrorKind::Config(format!("bind: {text} is no address")), error))?,
    };
    Ok(SocketAddr::new(ip, port))
}

/// A path of the file: where the program runs, beside the file, or one directory above it.
fn locate(path: &Path, directory: &Path) -> PathBuf {
    let above = directory.parent().unwrap_or(directory);
    let beside = [directory.join(path), above.join(path)];
    if path.exists() {
        return path.to_path_buf();
    }
    beside.into_iter().find(|candidate| candidate.exists()).unwrap_or_else(|| path.to_path_buf())
}

impl Server {
    fn check(self, luavm: &LuaVm, directory: &Path) -> Result<ServerConfig, Error> {
        let service = match &self.entry {
            Some(entry) => ServiceConfig::Script(self.script(locate(entry, directory), luavm)?),
            None => ServiceConfig::Builtin(self.builtin(directory)?),
        };
        let bind = address(self.bind.as_deref(), self.port, Ipv4Addr::UNSPECIFIED)?;
        let protocol = match self.protocol.as_str() {
            "websocket" | "ws" | "wss" => Protocol::WebSocket,
            "socket" | "tcp" => Protocol::Socket,
            other => return Err(refused(format!("protocol: {other} is not known: websocket or socket"))),
        };
        if self.protocol == "wss" && self.tls.is_none() {
            return Err(refused("protocol: wss needs tls with cert and key"));
        }
        let mut settings = match protocol {
            Protocol::WebSocket => ServerSettings::websocket(bind),
            Protocol::Socket => ServerSettings::socket(bind),
        };
        settings.options = self.options.into_iter().map(|option| (option.name, option.value)).collect();
        settings.path =
            settings.options.iter().find(|(name, _)| name == "path").map(|(_, value)| value.clone());
        (settings.protocols, settings.origins) = (self.protocols, self.origins);
        self.limits.apply(&mut settings.limits);
        let seconds = |set: Option<u64>, otherwise| set.map_or(otherwise, Duration::from_secs);
        settings.limits.read_time = seconds(self.read_timeout, settings.limits.read_time);
        settings.limits.write_time = seconds(self.write_timeout, settings.limits.write_time);
        let tls = self.tls.map(|tls| (locate(&tls.cert, directory), locate(&tls.key, directory)));
        Ok(ServerConfig { settings, service, tls })
    }

    fn script(&self, entry: PathBuf, luavm: &LuaVm) -> Result<ScriptSettings, Error> {
        let mut script = ScriptSettings::new(entry);
        script.abi = match self.abi {
            None | Some(2) => Abi::V2,
            Some(1) => Abi::V1,
            Some(other) => return Err(refused(format!("abi: {other} is not known: 1 or 2"))),
        };
        script.reload = match self.byte_code_expires.unwrap_or(10) {
            0 => None,
            seconds => Some(Duration::from_secs(seconds)),
        };
        script.memory_max = luavm.memory_max.unwrap_or(script.memory_max);
        script.time_max = luavm.time_max.map_or(script.time_max, Duration::from_millis);
        Ok(script)
    }

    fn builtin(&self, directory: &Path) -> Result<BuiltinSettings, Error> {
        if matches!(self.protocol.as_str(), "socket" | "tcp") {
            return Err(refused(format!(
                "the server on port {} needs an entry: its protocol is a script",
                self.port
            )));
        }
        let key = match &self.auth {
            None => None,
            Some(Auth { secret: Some(secret), public_key: None, .. }) => Some(Key::secret(secret)),
            Some(Auth { secret: None, public_key: Some(file), .. }) => {
                let pem = std::fs::read(locate(file, directory)).map_err(|error| {
                    Error::with(ErrorKind::Config(format!("{} cannot be read", file.display())), error)
                })?;
                Some(Key::public(&pem))
            }
            Some(_) => return Err(refused("auth needs either a secret or a publicKey")),
        };
        let key = key.transpose().map_err(|reason| refused(format!("auth: {reason}")))?;
        let required = self.auth.as_ref().is_some_and(|auth| auth.required);
        Ok(BuiltinSettings { key, anonymous: self.anonymous.clone(), required })
    }
}
