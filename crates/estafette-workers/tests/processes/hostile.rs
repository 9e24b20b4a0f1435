//! Peers that break the protocol: they are dropped, and nothing else suffers.

use std::{
    io::{Read as _, Write as _},
    os::unix::{fs::PermissionsExt as _, net::UnixStream},
    time::Duration,
};

use estafette_workers::{Group, To};
use serde_json::{Value, json};

use crate::stage::{Stage, eventually};

const SECOND: Duration = Duration::from_secs(1);

fn frame(kind: u8, rest: &[u8]) -> Vec<u8> {
    let length = u32::try_from(rest.len() + 1).unwrap();
    [&length.to_be_bytes()[..], &[kind], rest].concat()
}

fn hello(to: &str) -> Vec<u8> {
    frame(1, json!({ "protocol": 1, "from": "outside-1", "to": to }).to_string().as_bytes())
}

/// Writes to a worker's socket and reads until it closes the connection; what it said.
fn says(stage: &Stage, bytes: &[u8]) -> Vec<u8> {
    let mut socket = UnixStream::connect(stage.socket("0")).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    socket.write_all(bytes).unwrap();
    let mut said = Vec::new();
    match socket.read_to_end(&mut said) {
        Err(error) if error.kind() != std::io::ErrorKind::ConnectionReset => panic!("not dropped: {error}"),
        _ => said,
    }
}

async fn answers(group: &Group) {
    let reply: Value = group.request("ask", &0, To::One(1), SECOND).await.unwrap();
    assert_eq!(reply["here"], "0");
}

#[tokio::test]
async fn garbage_is_dropped_with_a_log_line_and_the_worker_goes_on() {
    let (stage, group) = Stage::up("chat").await;
    let hello = hello("0");
    let garbage: &[(&str, Vec<u8>)] = &[
        ("a web browser", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec()),
        ("zeros", vec![0; 64]),
        ("a gibibyte, announced first", vec![0x40, 0, 0, 0]),
        ("a gibibyte, announced after a hello", [&hello[..], &[0x40, 0, 0, 0]].concat()),
        ("an unknown kind", [&hello[..], &frame(99, b"x")].concat()),
        ("an empty frame", [&hello[..], &[0, 0, 0, 0]].concat()),
        ("an action that ends after its frame", [&hello[..], &frame(4, &[0, 200, b'a'])].concat()),
        ("a reply nobody asked for", [&hello[..], &frame(6, &[0; 9])].concat()),
        ("no hello", frame(4, b"\x00\x04echo1")),
        ("a line that is none", b"{\"type\":\"send\",\"action\":1}\n".to_vec()),
        ("a line without end", vec![b'{'; 8192]),
    ];
    for (what, bytes) in garbage {
        let said = says(&stage, bytes);
        assert!(said.len() < 200, "{what}: {said:?}");
        answers(&group).await;
    }
    let counts: Value = group.request("counts", &(), To::One(0), SECOND).await.unwrap();
    assert_eq!(counts["peers_dropped"], garbage.len());
    eventually("each is logged", async || {
        let output = stage.text("output");
        let lines = output.lines().filter(|line| line.contains("dropped a peer that broke the protocol"));
        (lines.count() == garbage.len()).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_caller_that_wants_somebody_else_or_another_protocol_is_refused() {
    let (stage, _group) = Stage::up("chat").await;
    let said = says(&stage, &hello("1"));
    assert!(String::from_utf8_lossy(&said).contains("this is 0, not 1"), "{said:?}");
    let other = json!({ "protocol": 2, "from": "outside-1", "to": "0" }).to_string();
    let said = says(&stage, &frame(1, other.as_bytes()));
    assert!(String::from_utf8_lossy(&said).contains("protocol 2 is not spoken here"), "{said:?}");
}

#[tokio::test]
async fn half_frames_hold_up_nobody() {
    let (stage, group) = Stage::up("chat").await;
    let message = frame(4, b"\x00\x04note\"half\"");
    let mut halves = Vec::new();
    for cut in 1..message.len() {
        let mut socket = UnixStream::connect(stage.socket("0")).unwrap();
        socket.write_all(&[&hello("0")[..], &message[..cut]].concat()).unwrap();
        halves.push((socket, cut));
    }
    answers(&group).await;
    for (socket, cut) in &mut halves {
        socket.write_all(&message[*cut..]).unwrap();
    }
    eventually("every message is whole in the end", async || {
        (stage.text("notes").lines().count() == halves.len()).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_flood_of_one_peer_does_not_keep_others_from_being_answered() {
    let (stage, group) = Stage::up("chat").await;
    let path = stage.socket("0");
    let flooding = std::thread::spawn(move || {
        let mut socket = UnixStream::connect(path).unwrap();
        socket.write_all(&hello("0")).unwrap();
        let many = frame(4, b"\x00\x04echo1").repeat(2000);
        for _ in 0..200 {
            socket.write_all(&many).unwrap();
        }
    });
    while !flooding.is_finished() {
        let reply: Value = group.request("echo", &"me too", To::One(0), 5 * SECOND).await.unwrap();
        assert_eq!(reply["data"], "me too");
    }
    flooding.join().unwrap();
}

#[tokio::test]
async fn the_folder_of_the_sockets_is_private() {
    let (stage, _group) = Stage::up("chat").await;
    for folder in [stage.root(), stage.root().join("app")] {
        let mode = std::fs::metadata(&folder).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "{}", folder.display());
    }
}
