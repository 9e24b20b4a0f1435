//! Both dialects, end to end: a user says something, a backend answers.

use estafette_gateway::websocket::frame::{Opcode, encode, encode_masked};

use crate::{Stage, peer::Peer};

#[tokio::test]
async fn the_newest_client_authenticates_subscribes_and_publishes() {
    let stage = Stage::new().await;
    let (mut backend, mut user) = (stage.backend().await, stage.user().await);
    let done = |i: u32| format!(r#"{{"E":null,"r":{{"s":true}},"i":{i}}}"#);
    assert_eq!(backend.ask(r#"{"m":"queue.consume","p":["foo"],"i":1}"#).await, done(1));
    user.send("hello").await;
    let event = backend.next_json().await;
    assert_eq!(event["p"]["d"]["frame"]["data"], "hello");
    assert_eq!((&event["e"], &event["p"]["t"]), (&"queue.pop".into(), &"foo".into()));
    let id = event["p"]["c"].as_str().unwrap().to_owned();

    // Written at once, answered in order.
    for request in [
        format!(r#"{{"m":"conn.call","p":{{"c":{id},"f":"set_context_value","a":["user_id",1000]}},"i":2}}"#),
        format!(r#"{{"m":"conn.call","p":{{"c":"{id}","f":"subscribe","a":["user_1000"]}},"i":3}}"#),
        format!(r#"{{"m":"mesh.send","p":{{"c":{id},"d":"welcome"}},"i":4}}"#),
        r#"{"m":"mesh.send","p":{"c":"user_1000","d":"to all"},"i":5}"#.into(),
        r#"{"m":"mesh.publish","p":{"c":"nobody","d":"x"},"i":6}"#.into(),
        format!(r#"{{"m":"conn.call","p":{{"c":{id},"f":"unsubscribe","a":[]}},"i":7}}"#),
        r#"{"m":"mesh.send","p":{"c":1,"d":"x"},"i":8}"#.into(),
    ] {
        backend.send(&request).await;
    }
    for i in 2..=4 {
        assert_eq!(backend.next().await.unwrap(), done(i));
    }
    assert_eq!(backend.next().await.unwrap(), r#"{"E":null,"r":{"s":1,"f":0},"i":5}"#);
    assert_eq!(backend.next().await.unwrap(), r#"{"E":null,"r":{"s":0,"f":0},"i":6}"#);
    assert_eq!(backend.next().await.unwrap(), done(7));
    let gone = backend.next_json().await;
    assert_eq!((&gone["E"]["c"], &gone["i"]), (&401.into(), &8.into()));
    assert_eq!(user.next().await.unwrap(), "welcome");
    assert_eq!(user.next().await.unwrap(), "to all");
    stage.end().await;
}

#[tokio::test]
async fn the_oldest_client_is_answered_with_its_ids_of_zero() {
    let stage = Stage::new().await;
    let (mut backend, mut user) = (stage.backend().await, stage.user().await);
    let done = r#"{"error":null,"result":{"success":true,"fail":0,"total":1},"id":0}"#;
    let consume = r#"{"method":"queue.consume","params":["foo","bar"],"id":0}"#;
    assert_eq!(backend.ask(consume).await, done);
    user.send("hello").await;
    let event = backend.next_json().await;
    assert_eq!(event["result"]["data"]["frame"]["data"], "hello");
    assert_eq!((&event["event"], &event["result"]["queue"]), (&"queue.consume".into(), &"foo".into()));
    let id = event["result"]["client_id"].as_str().unwrap().to_owned();
    for call in [
        format!(r#"{{"client_id":"{id}","method":"set_context_value","params":{{"user_id":1000}}}}"#),
        format!(r#"[{{"client_id":{id},"func":"subscribe","args":["a","b"]}}]"#),
    ] {
        let call = format!(r#"{{"method":"conn.call","params":{call},"id":0}}"#);
        assert_eq!(backend.ask(&call).await, done);
    }
    let publish = r#"{"method":"mesh.send","params":{"channel":"b","data":"to b"},"id":0}"#;
    assert_eq!(backend.ask(publish).await, done);
    let send = format!(r#"{{"method":"mesh.send","params":{{"client_id":"{id}","data":"to you"}},"id":0}}"#);
    assert_eq!(backend.ask(&send).await, done);
    assert_eq!(user.next().await.unwrap(), "to b");
    assert_eq!(user.next().await.unwrap(), "to you");
    stage.end().await;
}

#[tokio::test]
async fn a_number_in_a_string_is_a_channel_when_no_connection_has_it() {
    let stage = Stage::new().await;
    let (mut backend, mut user) = (stage.backend().await, stage.user().await);
    let request = r#"{"m":"mesh.send","p":{"c":"10001","d":"x"},"i":1}"#;
    backend.send(request).await;
    assert_eq!(backend.next_json().await["E"]["c"], 401);
    backend.ask(r#"{"m":"queue.pop","p":["foo"],"i":2}"#).await;
    user.send("hello").await;
    let id = backend.next_json().await["p"]["c"].as_str().unwrap().to_owned();
    let subscribe = format!(r#"{{"m":"conn.call","p":{{"c":"{id}","f":"subscribe","a":["10001"]}},"i":3}}"#);
    backend.ask(&subscribe).await;
    assert_eq!(backend.ask(request).await, r#"{"E":null,"r":{"s":1,"f":0},"i":1}"#);
    assert_eq!(user.next().await.unwrap(), "x");
    stage.end().await;
}

#[tokio::test]
async fn pings_are_answered_and_unasked_pongs_taken() {
    let stage = Stage::new().await;
    let mut backend = stage.backend().await;
    assert_eq!(backend.ask("ping").await, "pong");
    // The newest blocking client does not mask its pongs.
    backend.send_bytes(&encode(Opcode::Pong, b"")).await;
    let ping = r#"{"m":"server.ping","p":[],"i":1}"#;
    assert_eq!(backend.ask(ping).await, r#"{"E":null,"r":{"s":"server.pong"},"i":1}"#);
    backend.send_bytes(&encode(Opcode::Text, ping.as_bytes())).await;
    assert_eq!(backend.next().await, Err(1002));
    stage.end().await;
}

#[tokio::test]
async fn a_request_in_fragments_is_one_request() {
    let stage = Stage::new().await;
    let mut backend = stage.backend().await;
    let ping = br#"{"method":"server.ping","params":[],"id":"\u0416"}"#;
    let mut first = encode_masked(Opcode::Text, &ping[..20], [7; 4]).to_vec();
    first[0] &= 0x7F;
    backend.send_bytes(&first).await;
    backend.send_bytes(&encode_masked(Opcode::Continuation, &ping[20..], [7; 4])).await;
    let pong = r#"{"error":null,"result":{"status":"server.pong"},"id":"\u0416"}"#;
    assert_eq!(backend.next().await.unwrap(), pong);
    stage.end().await;
}

#[tokio::test]
async fn nonsense_is_answered_and_the_session_goes_on() {
    let stage = Stage::new().await;
    let mut backend = stage.backend().await;
    for nonsense in ["", "{}", "[1]", "{\"m\":7}", "\u{0}", "{\"m\":\"queue.pop\",\"p\":[]}"] {
        backend.send(nonsense).await;
        assert_eq!(backend.next_json().await["E"]["c"], 101, "{nonsense:?}");
    }
    backend.send_bytes(&encode_masked(Opcode::Binary, &[0xFF], [0; 4])).await;
    assert_eq!(backend.next_json().await["E"]["c"], 101);
    assert_eq!(backend.ask("ping").await, "pong");
    stage.end().await;
}

#[tokio::test]
async fn a_request_that_is_too_large_ends_the_session() {
    let settings = estafette_gateway::api::ApiSettings { request_max: 1_000, ..crate::settings() };
    let stage = Stage::with(settings).await;
    let mut backend = stage.backend().await;
    backend.send(&"x".repeat(2_000)).await;
    assert_eq!(backend.next().await, Err(1009));
    stage.end().await;
}

#[tokio::test]
async fn stopping_tells_backends_to_connect_again() {
    let mut stage = Stage::new().await;
    let mut backend = stage.backend().await;
    assert_eq!(backend.ask("ping").await, "pong");
    drop(stage.stop.take());
    assert_eq!(backend.next().await, Err(1012));
    stage.end().await;
}

#[tokio::test]
async fn bytes_sent_along_with_the_handshake_are_not_lost() {
    let stage = Stage::new().await;
    let mut stream = tokio::net::TcpStream::connect(stage.management).await.unwrap();
    let mut bytes = b"GET /ws/v1 HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".to_vec();
    bytes.extend_from_slice(&encode_masked(Opcode::Text, b"ping", [9; 4]));
    tokio::io::AsyncWriteExt::write_all(&mut stream, &bytes).await.unwrap();
    let mut answer = Vec::new();
    crate::within(async {
        while !answer.ends_with(b"pong") {
            assert_ne!(tokio::io::AsyncReadExt::read_buf(&mut stream, &mut answer).await.unwrap(), 0);
        }
    })
    .await;
    assert!(Peer::connect_with(stage.management, "/ws/v2", "").await.is_err());
    stage.end().await;
}
