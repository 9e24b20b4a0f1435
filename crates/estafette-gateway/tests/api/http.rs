//! Plain HTTP: discovery, sending, metrics, health.

use serde_json::{Value, json};

use crate::{Stage, peer::http, settings};

async fn get(address: std::net::SocketAddr, path: &str) -> (u16, String) {
    let (status, _, body) = http(address, &format!("GET {path}"), "", "").await;
    (status, body)
}

#[tokio::test]
async fn every_node_tells_its_version_and_the_nodes() {
    let stage = Stage::new().await;
    for address in [stage.management, stage.discovery] {
        let (status, body) = get(address, "/version").await;
        let version: Value = serde_json::from_str(&body).unwrap();
        assert_eq!((status, &version["api"][0], &version["apis"][0]), (200, &json!("v1"), &json!("v1")));
        let (status, body) = get(address, "/v1/nodes").await;
        let nodes: Value = serde_json::from_str(&body).unwrap();
        let node = &nodes["nodes"][0];
        let at = stage.management.to_string();
        assert_eq!((status, &node["host"], &node["api_server"]), (200, &json!(at), &json!(at)));
        assert_eq!((&node["ip"], &node["port"]), (&json!("127.0.0.1"), &json!(stage.management.port())));
        assert!(node["id"].is_string());
    }
    assert_eq!(get(stage.discovery, "/ws/v1").await.0, 404);
    stage.end().await;
}

#[tokio::test]
async fn sends_and_publishes_reach_the_user() {
    let stage = Stage::new().await;
    let (mut backend, mut user) = (stage.backend().await, stage.user().await);
    backend.ask(r#"{"m":"queue.pop","p":["foo"],"i":1}"#).await;
    user.send("hello").await;
    let id = backend.next_json().await["p"]["c"].as_str().unwrap().to_owned();
    let subscribe = format!(r#"{{"m":"conn.call","p":{{"c":{id},"f":"subscribe","a":["news"]}},"i":2}}"#);
    backend.ask(&subscribe).await;

    let post = async |path: &str, body: &str| {
        let (status, _, body) = http(stage.management, &format!("POST {path}"), "", body).await;
        (status, body)
    };
    let done = (200, r#"{"E":null,"r":{"s":true}}"#.to_owned());
    assert_eq!(post("/v1/mesh/send", &format!(r#"{{"c":{id},"d":"one"}}"#)).await, done);
    assert_eq!(post("/v1/mesh/send", &format!(r#"{{"c":"{id}","d":"two","t":"text"}}"#)).await, done);
    let published = (200, r#"{"E":null,"r":{"s":1,"f":0}}"#.to_owned());
    assert_eq!(post("/v1/mesh/publish", r#"{"c":"news","d":"three"}"#).await, published);
    for text in ["one", "two", "three"] {
        assert_eq!(user.next().await.unwrap(), text);
    }

    assert_eq!(post("/v1/mesh/send", "{").await.0, 400);
    let (status, body) = post("/v1/mesh/send", r#"{"c":1,"d":"x"}"#).await;
    assert_eq!((status, body.starts_with(r#"{"E":{"c":401,"m":""#)), (200, true));
    let (status, body) = post("/v1/mesh/publish", r#"{"c":"news","d":"%","t":"binary"}"#).await;
    assert_eq!((status, body.starts_with(r#"{"E":{"c":101,"m":""#)), (200, true));
    stage.end().await;
}

#[tokio::test]
async fn what_is_not_there_too_large_or_meant_otherwise_is_refused() {
    let settings = estafette_gateway::api::ApiSettings { request_max: 1_000, ..settings() };
    let stage = Stage::with(settings).await;
    assert_eq!(get(stage.management, "/").await.0, 404);
    assert_eq!(get(stage.management, "/v1/mesh/send").await.0, 405);
    assert_eq!(get(stage.management, "/ws/v1").await.0, 426);
    let large = "x".repeat(2_000);
    assert_eq!(http(stage.management, "POST /v1/mesh/publish", "", &large).await.0, 413);
    stage.end().await;
}

#[tokio::test]
async fn metrics_have_our_names_and_the_references() {
    let stage = Stage::new().await;
    let mut user = stage.user().await;
    user.send("hello").await;
    stage.until(|stage| stage.depth("foo").0 == 1).await;
    let (status, body) = get(stage.discovery, "/metrics").await;
    assert_eq!(status, 200);
    for line in [
        "estafette_gateway_connections 1",
        "connmix_engine_servers_clients 1",
        "connmix_engine_servers_read_messages_total 1",
        "estafette_gateway_queue_messages{queue=\"foo\"} 1",
        "estafette_gateway_closed_total{reason=\"peer\"} 0",
    ] {
        assert!(body.lines().any(|found| found == line), "{line} is not in\n{body}");
    }
    stage.end().await;
}

#[tokio::test]
async fn a_node_that_stops_is_healthy_but_not_ready() {
    let stage = Stage::new().await;
    assert_eq!(get(stage.discovery, "/readyz").await.0, 200);
    stage.handle.set_ready(false);
    assert_eq!(get(stage.discovery, "/readyz").await.0, 503);
    assert_eq!(get(stage.discovery, "/healthz").await.0, 200);
    stage.end().await;
}
