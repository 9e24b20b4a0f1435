//! The gateway as a program: its configuration, its scripts, and how it stops.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    process::Stdio,
    time::Duration,
};

use rustix::process::Signal;

use crate::vocabulary::{Place, end, signal};

const CONFIG: &str = r#"
engine:
  servers:
    - { port: 0, bind: 127.0.0.1, protocol: websocket, options: [{name: path, value: /chat}], entry: entry.lua }
  apiServer: { port: 0 }
center: { apiServer: { port: 0 } }
"#;

fn place(script: &str) -> Place {
    let place = Place::file();
    std::fs::write(place.directory.path().join("gateway.yaml"), CONFIG).unwrap();
    std::fs::write(place.directory.path().join("entry.lua"), script).unwrap();
    place
}

#[test]
fn serves_users_and_backends_until_it_is_asked_to_stop() {
    let place = place("function on_message(msg) mix.websocket():send('got ' .. msg.data) end");
    let mut command = place.command(&["gateway", "-f", "gateway.yaml"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let address = lines.next().unwrap().strip_prefix("users connect to ").unwrap().to_owned();
    let backends = lines.next().unwrap();
    let discovery = backends.rsplit_once(' ').unwrap().1.to_owned();

    let mut socket = TcpStream::connect(&discovery).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    write!(socket, "GET /v1/nodes HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    assert!(answer.contains(r#""id":"n1""#), "{answer}");

    let mut user = TcpStream::connect(&address).unwrap();
    user.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    write!(
        user,
        "GET /chat HTTP/1.1\r\nHost: gateway\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    .unwrap();
    user.write_all(&[0x81, 0x82, 0, 0, 0, 0, b'h', b'i']).unwrap();
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"got hi") {
        user.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    signal(child.id(), Signal::TERM);
    let mut rest = Vec::new();
    user.read_to_end(&mut rest).unwrap();
    // A close frame with 1012: connect again.
    assert_eq!((rest[0], &rest[2..4]), (0x88, &1012_u16.to_be_bytes()[..]));
    drop(user);
    assert_eq!(end(child).status, 0);
}

#[test]
fn says_what_is_wrong_with_a_configuration_or_a_script() {
    let place = place("function on_message(msg) mix.quueue.push('a', {}) end");
    assert_eq!(
        place.ok(&["gateway", "-f", "gateway.yaml", "--check"]),
        "gateway.yaml can be used: 1 servers\n"
    );
    let found = place.run(&["lua", "check", "entry.lua"]);
    assert_eq!(found.status, 1);
    assert_eq!(
        String::from_utf8(found.stdout).unwrap(),
        "entry.lua: on_message\nentry.lua:1: there is no mix.quueue.push\n"
    );
    std::fs::write(place.directory.path().join("entry.lua"), "function on_message(").unwrap();
    let error = place.run(&["lua", "check", "entry.lua"]).fails(1);
    assert!(error.contains("entry.lua:1:"), "{error}");
    let error = place.run(&["gateway", "-f", "gateway.yaml"]).fails(1);
    assert!(error.contains("the script does not load"), "{error}");
    std::fs::write(
        place.directory.path().join("gateway.yaml"),
        CONFIG.replace("websocket", "carrier-pigeon"),
    )
    .unwrap();
    let error = place.run(&["gateway", "-f", "gateway.yaml"]).fails(1);
    assert!(error.contains("carrier-pigeon is not known"), "{error}");
}
