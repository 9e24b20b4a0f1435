//! The built-in protocol, over real sockets.

use std::{net::SocketAddr, time::SystemTime};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use estafette_gateway::{
    Gateway, Payload, ServerSettings, Service,
    builtin::{BuiltinSettings, Grants, Key},
};
use serde_json::{Value, json};

use crate::{
    client::{Client, dial, request},
    scripts::LOCAL,
};

const SECRET: &str = "a secret that is long enough for it";

fn token(seconds: i64) -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let claims = json!({
        "sub": "ann", "exp": now.saturating_add_signed(seconds),
        "channels": ["room.*"], "publish": ["room.1"], "queues": ["chat"],
    });
    let message =
        [json!({ "alg": "HS256" }), claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string())).join(".");
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, SECRET.as_bytes());
    let sign = ring::hmac::sign(&key, message.as_bytes());
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(sign))
}

async fn start(required: bool) -> Gateway {
    let settings = BuiltinSettings {
        key: Some(Key::secret(SECRET).unwrap()),
        anonymous: Grants { channels: vec!["news".into()], ..Grants::default() },
        required,
    };
    let server = ServerSettings::websocket(SocketAddr::from(LOCAL));
    Gateway::builder().cores(1).serve(server, Service::builtin(settings)).start().await.unwrap()
}

/// Says it and returns the answer.
fn ask(client: &mut Client, request: &Value) -> Value {
    client.text(&request.to_string());
    serde_json::from_str(&client.receive_text()).unwrap()
}

#[tokio::test]
async fn users_do_what_their_token_permits() {
    let gateway = start(false).await;
    let address = gateway.addresses()[0];
    let hub = gateway.hub().clone();
    let mut backend = hub.queues().register(&["chat".into()]).unwrap();
    let talk = tokio::task::spawn_blocking(move || {
        let mut client = Client::connect(address, "/");
        let mut ask = |request: Value| ask(&mut client, &request);
        assert_eq!(ask(json!({ "op": "ping", "id": 1 })), json!({ "id": 1, "result": { "pong": true } }));
        assert_eq!(ask(json!({ "op": "subscribe", "channel": "news" }))["result"], json!({}));
        assert_eq!(ask(json!({ "op": "subscribe", "channel": "room.1" }))["error"], json!("not permitted"));
        assert_eq!(ask(json!({ "op": "auth", "token": "x.y.z" }))["error"], json!("the token is malformed"));
        assert_eq!(ask(json!({ "op": "auth", "token": token(60) }))["result"], json!({ "user": "ann" }));
        assert_eq!(ask(json!({ "op": "subscribe", "channel": "room.1" }))["result"], json!({}));
        assert_eq!(
            ask(json!({ "op": "publish", "channel": "room.2", "data": 1 }))["error"],
            json!("not permitted")
        );
        let event = ask(json!({ "op": "publish", "channel": "room.1", "data": { "a": 1 }, "id": 2 }));
        assert_eq!(event, json!({ "channel": "room.1", "data": { "a": 1 } }));
        assert_eq!(client.receive_text(), r#"{"id":2,"result":{"fail":0,"success":1}}"#);
        let mut ask = |request: Value| self::ask(&mut client, &request);
        assert_eq!(ask(json!({ "op": "push", "queue": "chat", "data": { "b": 2 } }))["result"], json!({}));
        assert_eq!(ask(json!({ "op": "push", "queue": "chat", "data": "text" }))["result"], json!(null));
        assert_eq!(ask(json!({ "op": "dance" }))["error"], json!("op is not known"));
        client
    });
    let mut client = talk.await.unwrap();
    assert_eq!(backend.next().await.message.data.get(), r#"{"user":"ann","data":{"b":2}}"#);
    assert_eq!(hub.publish("news", Payload::text("to all")).await.success, 1);
    let end = tokio::task::spawn_blocking(move || {
        assert_eq!(client.receive_text(), "to all");
        client.text("no request");
        client.receive_close()
    });
    assert_eq!(end.await.unwrap(), Some(1008));
}

#[tokio::test]
async fn a_token_ends_during_the_connection() {
    let gateway = start(true).await;
    let address = gateway.addresses()[0];
    let end = tokio::task::spawn_blocking(move || {
        assert_eq!(&Client::shake(dial(address), request("/")).1[9..12], "403");
        let old = format!("/?token={}", token(-1));
        assert_eq!(&Client::shake(dial(address), request(&old)).1[9..12], "403");
        Client::connect(address, &format!("/?token={}", token(2))).receive_close()
    });
    assert_eq!(end.await.unwrap(), Some(4401));
}
