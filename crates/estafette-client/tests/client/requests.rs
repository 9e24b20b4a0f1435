//! Calls, sends and publishes, and what they fail with.

use std::time::Duration;

use estafette_client::{ConnectionId, ErrorKind, Payload};
use estafette_gateway::api::{Roles, User};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use crate::stage::{Stage, builder, next, within};

#[tokio::test]
async fn a_connection_joins_channels_and_hears_what_is_published() {
    let stage = Stage::new().await;
    let client = stage.client().await;
    let mut messages = client.consume(["foo"]);
    let mut user = stage.user().await;
    user.say("login").await;
    let connection = next(&mut messages).await.connection().unwrap();
    client.set_context_value(connection, "user_id", 1_000).await.unwrap();
    client.set_context(connection, serde_json::json!({"user_id": 1_000, "name": "Bob"})).await.unwrap();
    client.subscribe(connection, ["user_1000", "news"]).await.unwrap();
    let published = client.publish("user_1000", "to you").await.unwrap();
    assert_eq!((published.success, published.fail), (1, 0));
    client.publish_json("news", &serde_json::json!({"n": 1})).await.unwrap();
    client.send(connection, Payload::Binary(b"bytes".to_vec())).await.unwrap();
    client.unsubscribe(connection, ["user_1000"]).await.unwrap();
    assert_eq!(client.publish("user_1000", "nobody").await.unwrap().success, 0);
    for expected in ["to you", "{\"n\":1}", "bytes"] {
        assert_eq!(user.hear().await, expected);
    }
}

#[tokio::test]
async fn requests_at_once_are_all_answered() {
    let stage = Stage::new().await;
    let client = stage.client().await;
    let mut messages = client.consume(["foo"]);
    let mut user = stage.user().await;
    user.say("hello").await;
    let connection = next(&mut messages).await.connection().unwrap();
    let sends = (0..3_000).map(|number| client.send(connection, number.to_string()));
    let hears = async {
        // Requests made at once have no order among each other.
        let mut heard = std::collections::BTreeSet::new();
        while heard.len() < 3_000 {
            heard.insert(user.hear().await);
        }
    };
    let (answers, ()) = within(async { tokio::join!(futures_util::future::join_all(sends), hears) }).await;
    assert!(answers.iter().all(Result::is_ok));
}

#[tokio::test]
async fn errors_say_what_to_do() {
    let stage = Stage::new().await;
    let client = stage.client().await;
    let gone = ConnectionId::try_from(7).unwrap();
    assert_eq!(client.send(gone, "x").await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(client.subscribe(gone, ["a"]).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(client.publish("", "x").await.unwrap_err().kind(), ErrorKind::InvalidInput);
    assert!(ConnectionId::try_from(0).is_err());
}

#[tokio::test]
async fn credentials_are_needed_where_there_are_users() {
    let user =
        User { username: "amy".into(), password: "secret".into(), roles: Roles::ALL, host: "*".into() };
    let stage = Stage::with("n1", 1, vec![user]).await;
    let stranger = stage.client().await;
    assert_eq!(stranger.publish("a", "x").await.unwrap_err().kind(), ErrorKind::Denied);
    let amy = stage.builder().credentials("amy", "secret").build().await.unwrap();
    amy.publish("a", "x").await.unwrap();
}

#[tokio::test]
async fn without_a_gateway_there_is_no_client() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let error = builder(&address).build().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
}

#[tokio::test]
async fn a_request_that_reached_no_node_was_not_done() {
    let mut stage = Stage::new().await;
    let client = stage.builder().answer_time_max(Duration::from_millis(200)).build().await.unwrap();
    stage.stop_api().await;
    assert_eq!(client.publish("a", "x").await.unwrap_err().kind(), ErrorKind::Unavailable);
}

#[tokio::test]
async fn a_request_without_an_answer_may_have_been_done() {
    let discovery = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let node = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = discovery.local_addr().unwrap().to_string();
    let address = node.local_addr().unwrap();
    tokio::spawn(async move {
        let body =
            format!(r#"{{"apis":["v1"],"nodes":[{{"id":"n1","api_server":"{address}","ip":"127.0.0.1"}}]}}"#);
        loop {
            let (mut stream, _) = discovery.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                stream.read_buf(&mut request).await.unwrap();
            }
            stream.write_all(format!("HTTP/1.1 200 OK\r\n\r\n{body}").as_bytes()).await.unwrap();
        }
    });
    tokio::spawn(async move {
        // It reads a request, and goes.
        let (stream, _) = node.accept().await.unwrap();
        let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
        estafette_client::StreamExt::next(&mut socket).await;
    });
    let client = builder(&host).build().await.unwrap();
    assert_eq!(within(client.publish("a", "x")).await.unwrap_err().kind(), ErrorKind::TimedOut);
}
