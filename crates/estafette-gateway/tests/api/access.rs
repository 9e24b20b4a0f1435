//! Users, roles, and pages that must not get in.

use estafette_gateway::api::{Api, ApiSettings, Roles, User};

use crate::{
    Stage,
    peer::{Peer, http},
    settings,
};

/// `amy:secret` and `bob:secret`.
const AMY: &str = "Authorization: Basic YW15OnNlY3JldA==\r\n";
const BOB: &str = "Authorization: Basic Ym9iOnNlY3JldA==\r\n";

fn users() -> Vec<User> {
    let user = |name: &str, roles| User {
        username: name.into(),
        password: "secret".into(),
        roles,
        host: "127.*".into(),
    };
    vec![user("amy", Roles::ALL), user("bob", Roles { read: true, write: false })]
}

#[tokio::test]
async fn credentials_and_roles_decide() {
    let stage = Stage::with(ApiSettings { users: users(), ..settings() }).await;
    let body = r#"{"c":"news","d":"x"}"#;
    let publish = async |headers: &str| http(stage.management, "POST /v1/mesh/publish", headers, body).await;
    let (status, head, _) = publish("").await;
    assert_eq!((status, head.contains("www-authenticate: Basic")), (401, true));
    assert_eq!(publish(BOB).await.0, 403);
    assert_eq!(publish(AMY).await.0, 200);
    assert_eq!(http(stage.discovery, "GET /metrics", "", "").await.0, 401);
    assert_eq!(http(stage.discovery, "GET /metrics", BOB, "").await.0, 200);
    assert_eq!(http(stage.discovery, "GET /v1/nodes", "", "").await.0, 200);

    let refused = Peer::connect_with(stage.management, "/ws/v1", "").await.err();
    assert_eq!(refused.as_deref(), Some("HTTP/1.1 401 Unauthorized"));
    let mut bob = Peer::connect_with(stage.management, "/ws/v1", BOB).await.unwrap();
    let consumed = bob.ask(r#"{"m":"queue.pop","p":["foo"],"i":1}"#).await;
    assert_eq!(consumed, r#"{"E":null,"r":{"s":true},"i":1}"#);
    bob.send(r#"{"m":"mesh.publish","p":{"c":"news","d":"x"},"i":2}"#).await;
    assert_eq!(bob.next_json().await["E"]["c"], 403);

    stage.handle.set_users(vec![]).unwrap();
    assert_eq!(publish("").await.0, 200);
    stage.end().await;
}

#[tokio::test]
async fn a_public_address_without_a_user_is_refused() {
    let stage = Stage::new().await;
    let management = Some("0.0.0.0:0".parse().unwrap());
    let public = ApiSettings { management, ..settings() };
    let error = Api::bind(public.clone(), stage.hub().clone()).await.err().unwrap();
    assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied);
    let api = Api::bind(ApiSettings { users: users(), ..public }, stage.hub().clone()).await.unwrap();
    assert!(api.handle().set_users(vec![]).is_err());
    stage.end().await;
}

#[tokio::test]
async fn a_browser_s_page_of_another_origin_gets_nothing() {
    let stage = Stage::new().await;
    let local = format!("Origin: http://{}\r\n", stage.management);
    for (origin, is_allowed) in [
        ("Origin: https://evil.example\r\n", false),
        ("Origin: null\r\n", false),
        ("Origin: *\r\n", true),
        (local.as_str(), true),
    ] {
        let connected = Peer::connect_with(stage.management, "/ws/v1", origin).await;
        assert_eq!(connected.is_ok(), is_allowed, "{origin}");
        let (status, _, _) =
            http(stage.management, "POST /v1/mesh/publish", origin, r#"{"c":"a","d":"x"}"#).await;
        assert_eq!(status == 200, is_allowed, "{origin}");
    }
    stage.end().await;
}
