//! A gateway with handlers in Rust, over real sockets.

use std::{net::SocketAddr, time::Duration};

use estafette_gateway::{
    Call, CallError, Gateway, Handlers, Kind, Payload, Published, ServerSettings,
    stats::CloseReason,
    websocket::frame::{Header, Opcode, apply_mask},
};
use serde_json::json;

use crate::client::{Client, Received, dial, request, until};

fn local() -> ServerSettings {
    ServerSettings::websocket(SocketAddr::from(([127, 0, 0, 1], 0)))
}

/// Echoes; `join X` subscribes; `id` tells the id; `all X` publishes to channel X; `bye` closes.
fn handlers() -> Handlers {
    Handlers::default().on_message(|peer, message| {
        let text = std::str::from_utf8(message.data).unwrap_or_default();
        let answer = match text.split_once(' ').unwrap_or((text, "")) {
            ("join", channel) => {
                format!("{:?}", peer.subscribe(&[channel.to_owned()]))
            }
            ("all", channel) => {
                format!("{:?}", peer.publish(channel, &Payload::text("to all")))
            }
            ("id", _) => peer.id().to_string(),
            ("context", key) => format!("{:?}", peer.context_value(key)),
            ("bye", _) => return peer.close(),
            _ => text.to_owned(),
        };
        let payload = match message.kind {
            Kind::Text => Payload::text(answer),
            Kind::Binary => Payload::binary(message.data.to_vec()),
        };
        drop(peer.send(payload));
    })
}

async fn start(settings: ServerSettings) -> Gateway {
    Gateway::builder().handlers(handlers()).listen(settings).cores(2).start().await.unwrap()
}

/// Runs what blocks beside the runtime.
async fn block<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

fn closed(gateway: &estafette_gateway::Hub, reason: CloseReason) -> u64 {
    gateway.stats().closed().find(|(counted, _)| *counted == reason).unwrap().1
}

#[tokio::test]
async fn messages_of_every_size_and_cut_are_echoed() {
    let gateway = start(local()).await;
    let address = gateway.addresses()[0];
    block(move || {
        let mut client = Client::connect(address, "/any?x=1");
        for size in [0, 1, 125, 126, 65_535, 65_536, 1_000_000] {
            let data = vec![b'x'; size];
            client.send(Opcode::Binary, &data);
            assert_eq!(client.receive(), Received::Binary(data));
        }
        for byte in estafette_gateway::websocket::frame::encode_masked(Opcode::Text, b"slow", [1; 4]) {
            client.raw(&[byte]);
        }
        assert_eq!(client.receive_text(), "slow");
        client.send(Opcode::Ping, b"p");
        assert_eq!(client.receive(), Received::Pong(b"p".to_vec()));
        client.send(Opcode::Close, &1000_u16.to_be_bytes());
        assert_eq!(client.receive_close(), Some(1000));
    })
    .await;
    until("counted", || {
        closed(gateway.hub(), CloseReason::Peer) == 1 && gateway.hub().stats().connections == 0
    });
    gateway.stop().await;
}

#[tokio::test]
async fn the_hub_reaches_connections_on_every_core() {
    let gateway = start(local()).await;
    let (address, hub) = (gateway.addresses()[0], gateway.hub().clone());
    let mut clients = Vec::new();
    for _ in 0..8 {
        let (client, id) = block(move || {
            let mut client = Client::connect(address, "/");
            client.text("join news");
            assert_eq!(client.receive_text(), "Ok(())");
            client.text("id");
            let id: estafette_gateway::ConnectionId = client.receive_text().parse().unwrap();
            (client, id)
        })
        .await;
        hub.call(id, Call::SetContextValue("user".into(), json!(9_007_199_254_740_993_u64))).await.unwrap();
        hub.send(id, Payload::text("hello")).await.unwrap();
        assert!(hub.is_live(id).await);
        clients.push((client, id));
    }
    assert_eq!(hub.publish("news", Payload::text("n")).await, Published { success: 8, fail: 0 });
    assert_eq!(hub.publish("other", Payload::text("n")).await, Published { success: 0, fail: 0 });
    let (_, first) = clients[0];
    block(move || {
        for (client, _) in &mut clients {
            assert_eq!((client.receive_text(), client.receive_text()), ("hello".into(), "n".into()));
            client.text("context user");
            assert_eq!(client.receive_text(), "Some(Number(9007199254740993))");
        }
        clients[0].0.text("all news");
        let own = clients[0].0.receive_text();
        assert_eq!((own.as_str(), clients[7].0.receive_text().as_str()), ("to all", "to all"));
        assert_eq!(clients[0].0.receive_text(), "Published { success: 8, fail: 0 }");
    })
    .await;
    until("gone", || hub.stats().connections == 0);
    assert_eq!(hub.send(first, Payload::text("x")).await, Err(CallError::NoConnection));
    assert_eq!(hub.stats().channels, 0);
}

#[tokio::test]
async fn stopping_tells_clients_to_connect_again() {
    let gateway = start(local()).await;
    let address = gateway.addresses()[0];
    let mut client = block(move || Client::connect(address, "/")).await;
    let closes = block(move || client.receive_close());
    let (code, ()) = tokio::join!(closes, gateway.stop());
    assert_eq!(code, Some(1012));
    assert!(std::net::TcpStream::connect(address).is_err());
}

#[tokio::test]
async fn broken_frames_are_answered_with_their_close_code() {
    let gateway = start(local()).await;
    let address = gateway.addresses()[0];
    block(move || {
        let cases: [(&[u8], u16); 9] = [
            (&[0xFF], 1002),                                              // reserved bits
            (&[0x83, 0x80, 0, 0, 0, 0], 1002),                            // a reserved opcode
            (&[0x81, 0x01, b'x'], 1002),                                  // not masked
            (&[0x89, 0xFE], 1002),                                        // a long ping
            (&[0x09, 0x80], 1002),                                        // a fragmented ping
            (&[0x82, 0xFF, 0xFF, 0, 0, 0, 0, 0, 0, 0], 1002),             // 2^63 bytes
            (&[0x82, 0xFF, 0, 0, 0, 0xFF, 0, 0, 0, 0, 0, 0, 0, 0], 1009), // a terabyte
            (&[0x81, 0x81, 0, 0, 0, 0, 0xFF], 1007),                      // no UTF-8
            (&[0x88, 0x81, 0, 0, 0, 0, 3], 1002),                         // half a close code
        ];
        for (bytes, code) in cases {
            let mut client = Client::connect(address, "/");
            client.raw(bytes);
            assert_eq!(client.receive_close(), Some(code), "{bytes:x?}");
        }
        let mut client = Client::connect(address, "/");
        client.send(Opcode::Close, &1005_u16.to_be_bytes());
        client.text("after the close");
        assert_eq!(client.receive_close(), Some(1002));
    })
    .await;
}

#[tokio::test]
async fn requests_that_are_no_handshake_are_refused() {
    let gateway = start(ServerSettings { path: Some("/chat".into()), ..local() }).await;
    let (address, hub) = (gateway.addresses()[0], gateway.hub().clone());
    block(move || {
        let status = |request: &str| Client::shake(dial(address), request).1[9..12].to_owned();
        assert_eq!(status(&request("/other")), "404");
        assert_eq!(status(&request("/chat").replace("GET", "POST")), "405");
        assert_eq!(status(&request("/chat").replace("HTTP/1.1", "HTTP/1.0")), "400");
        assert_eq!(status(&request("/chat").replace("13", "8")), "426");
        assert_eq!(status(&request("/chat").replace("Host", "Origin: http://evil.example\r\nHost")), "403");
        assert_eq!(status(&request("/chat").replace("Host", &"X: y\r\n".repeat(1_000))), "431");
        assert_eq!(status("\u{0}\u{1}\r\n\r\n"), "400");
        // What follows the request at once is kept.
        let mut first = request("/chat").into_bytes();
        first.extend(estafette_gateway::websocket::frame::encode_masked(
            Opcode::Text,
            b"early",
            [1, 2, 3, 4],
        ));
        let mut client = Client::shake(dial(address), first).0;
        assert_eq!(client.receive_text(), "early");
    })
    .await;
    until("counted", || closed(&hub, CloseReason::Handshake) == 7);
}

#[tokio::test]
async fn who_is_slow_or_silent_is_closed() {
    let mut settings = local();
    settings.limits.handshake_time = Duration::from_secs(1);
    settings.limits.read_time = Duration::from_secs(2);
    settings.limits.queued_max = 256 << 10;
    let gateway = start(settings).await;
    let (address, hub) = (gateway.addresses()[0], gateway.hub().clone());
    let (mut silent, unread) = block(move || {
        let half = dial(address);
        let silent = Client::connect(address, "/");
        let mut unread = Client::connect(address, "/");
        unread.text("join flood");
        assert_eq!(unread.receive_text(), "Ok(())");
        drop(std::thread::spawn(move || {
            let mut half = half;
            let mut byte = [0];
            drop(std::io::Read::read(&mut half, &mut byte));
        }));
        (silent, unread)
    })
    .await;
    let data = Payload::binary(vec![0; 100_000]);
    let mut fails = 0;
    while fails == 0 {
        fails = hub.publish("flood", data.clone()).await.fail;
    }
    // It answers no pings: its test client does so only by hand.
    assert_eq!(block(move || silent.receive_close()).await, Some(4408));
    until("all counted", || {
        [CloseReason::SlowReader, CloseReason::Idle, CloseReason::Handshake]
            .map(|reason| closed(&hub, reason))
            == [1; 3]
    });
    drop(unread);
}

#[tokio::test]
async fn a_storm_of_connections_leaves_nothing_behind() {
    let gateway = start(local()).await;
    let (address, hub) = (gateway.addresses()[0], gateway.hub().clone());
    block(move || {
        for _ in 0..5 {
            let clients: Vec<_> = (0..100)
                .map(|_| {
                    let mut client = Client::connect(address, "/");
                    client.text("join storm");
                    client
                })
                .collect();
            drop(clients);
        }
        let mut client = Client::connect(address, "/");
        client.text("still there");
        assert_eq!(client.receive_text(), "still there");
    })
    .await;
    until("gone", || (hub.stats().connections, hub.stats().channels, hub.stats().subscriptions) == (0, 0, 0));
}

#[tokio::test]
async fn channel_names_and_numbers_have_limits() {
    let mut settings = local();
    settings.limits.channels_max = 3;
    let gateway = start(settings).await;
    let address = gateway.addresses()[0];
    block(move || {
        let mut client = Client::connect(address, "/");
        let mut join = |name: &str| {
            client.text(&format!("join {name}"));
            client.receive_text().starts_with("Ok")
        };
        assert!(!join(&"x".repeat(256)));
        assert!(!join("a\u{0}b"));
        assert!(!join(""));
        assert!(join("1") && join("2") && join("2") && join("3"));
        assert!(!join("4"));
    })
    .await;
}

#[tokio::test]
async fn a_flood_of_empty_fragments_ends() {
    let gateway = start(local()).await;
    let address = gateway.addresses()[0];
    block(move || {
        let mut client = Client::connect(address, "/");
        let mut frames = bytes::BytesMut::new();
        for n in 0..1_100 {
            let opcode = if n == 0 { Opcode::Text } else { Opcode::Continuation };
            Header { finish: false, opcode, mask: Some([1; 4]), length: 1 }.write(&mut frames);
            let mut byte = [b'x'];
            apply_mask(&mut byte, [1; 4], 0);
            frames.extend_from_slice(&byte);
        }
        client.raw(&frames);
        assert_eq!(client.receive_close(), Some(1009));
    })
    .await;
}
