//! What a configuration file may say.

use super::*;

/// The reference's file, as it is published.
const REFERENCE: &str = r#"
engine:
  servers:
    - { port: 6790, bind: 0.0.0.0, protocol: websocket, options: [{name: path, value: /chat}], entry: lua/entry.websocket.lua,
        byteCodeExpires: 10, readBufferSize: 1024, writeBufferSize: 1024, readTimeout: 60, writeTimeout: 10 }
  luavm: { queue: {topicSize: 2000, maxTopics: 100}, redis: [{name: default, addr: "localhost:6379", password: "", db: 0}] }
  apiServer: { port: 6789, bind: 127.0.0.1 }
center: { apiServer: { port: 6787, bind: 0.0.0.0 } }
access: { users: [] }
logging: { filename: logs/connmix.log, level: debug, maxFiles: 7 }
"#;

#[test]
fn the_reference_s_file_is_a_configuration() {
    let config = Config::parse(REFERENCE, Path::new("conf")).unwrap();
    let server = &config.servers[0];
    assert_eq!(server.settings.bind, "0.0.0.0:6790".parse().unwrap());
    assert_eq!(server.settings.path.as_deref(), Some("/chat"));
    let ServiceConfig::Script(script) = &server.service else { panic!("no script") };
    assert_eq!(script.entry, Path::new("lua/entry.websocket.lua"));
    assert_eq!(script.reload, Some(Duration::from_secs(10)));
    assert_eq!(server.settings.limits.read_time, Duration::from_secs(60));
    assert_eq!(config.queues.messages_max, 2_000);
    assert_eq!(config.api.discovery, "0.0.0.0:6787".parse().ok());
    assert_eq!(config.api.management, "127.0.0.1:6789".parse().ok());
}

#[test]
fn what_cannot_be_meant_is_refused() {
    let refused = |text: &str| Config::parse(text, Path::new(".")).is_err();
    let server = |keys: &str| format!("engine: {{ servers: [{{ port: 1, entry: a.lua, {keys} }}] }}");
    assert!(!refused(&server("protocol: socket, abi: 1, limits: { messageMax: 5 }")));
    assert!(refused(&server("protocol: udp")));
    assert!(refused(&server("protocol: wss")));
    assert!(refused(&server("protocol: socket, abi: 3")));
    assert!(refused(&server("protocol: socket, bind: nowhere")));
    assert!(refused(&server("protocol: socket, limits: { unknown: 1 }")));
    assert!(refused("engine: ["));
    assert!(refused("servers: []"));
}

#[test]
fn a_server_without_an_entry_speaks_the_built_in_protocol() {
    let parse = |keys: &str| {
        let text = format!("engine: {{ servers: [{{ port: 1, protocol: websocket, {keys} }}] }}");
        Config::parse(&text, Path::new("."))
    };
    let config = parse(
        "auth: { secret: 0123456789abcdef0123456789abcdef, required: true }, anonymous: { channels: [news] }",
    )
    .unwrap();
    let ServiceConfig::Builtin(builtin) = &config.servers[0].service else { panic!("a script") };
    assert!(builtin.required && builtin.key.is_some() && builtin.anonymous.may_subscribe("news"));
    assert!(parse("auth: { secret: short }").is_err());
    assert!(parse("auth: { publicKey: /nowhere.pem }").is_err());
    assert!(parse("auth: { required: true }").is_err());
    assert!(Config::parse("engine: { servers: [{ port: 1, protocol: socket }] }", Path::new(".")).is_err());
}
