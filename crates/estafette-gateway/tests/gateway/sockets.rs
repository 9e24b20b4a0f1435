//! Raw sockets, whose protocol is a script.

use std::{
    io::{Read, Write},
    net::SocketAddr,
};

use estafette_gateway::{
    Call, Gateway, ServerSettings, Service,
    lua::{Abi, ScriptSettings},
    websocket::frame::Opcode,
};
use serde_json::json;

use crate::{
    client::{Client, dial, request},
    scripts::{LOCAL, block, script},
};

async fn socket(settings: ScriptSettings) -> Gateway {
    let server = ServerSettings::socket(SocketAddr::from(LOCAL));
    Gateway::builder().cores(1).serve(server, Service::script(settings)).start().await.unwrap()
}

/// The published shape of a raw socket's script.
const LINES: &str = r#"
    require("prettyprint")
    local text = require("protocols/text")
    function init() mix.queue.new("chat", 100) end
    function on_connect(conn) conn:send("welcome\n") end
    function on_close(err, conn) mix.queue.push("closed", { err = err or "none", uid = conn:context_value("uid") }) end
    function protocol_input(buf, conn) return text.input(buf, conn) end
    function protocol_decode(str, conn) return text.decode(str, conn) end
    function protocol_encode(str, conn) return text.encode(str, conn) end
    function on_message(data, conn)
        conn:set_context_value("uid", 7)
        conn:subscribe("lines")
        if data == "auth" then mix.queue.push("login", {}) conn:wait_context_value("never") end
        conn:send("got " .. data .. "\n")
        mix.mesh.send(conn:client_id(), "encoded")
    end
"#;

#[tokio::test]
async fn a_raw_socket_speaks_the_script_s_protocol() {
    let (_directory, settings) = script(LINES);
    let gateway = socket(ScriptSettings { abi: Abi::V1, ..settings }).await;
    let (address, hub) = (gateway.addresses()[0], gateway.hub().clone());
    let mut closed = hub.queues().register(&["closed".into()]).unwrap();
    block(move || {
        let mut stream = dial(address);
        for byte in b"one\r\ntwo\n" {
            stream.write_all(&[*byte]).unwrap();
        }
        let wanted = "welcome\ngot one\nencoded\ngot two\nencoded\n";
        let mut got = vec![0; wanted.len()];
        stream.read_exact(&mut got).unwrap();
        assert_eq!(String::from_utf8(got).unwrap(), wanted);
    })
    .await;
    let message = closed.next().await.message.data.get().to_owned();
    assert_eq!(message, r#"{"err":"lost","uid":7}"#);
    // What comes while a callback waits is cut into packets afterwards.
    let mut logins = hub.queues().register(&["login".into()]).unwrap();
    let waiting = tokio::task::spawn_blocking(move || {
        let mut stream = dial(address);
        stream.write_all(b"auth\nnext\n").unwrap();
        let wanted = "welcome\ngot auth\nencoded\ngot next\nencoded\n";
        let mut got = vec![0; wanted.len()];
        stream.read_exact(&mut got).unwrap();
        assert_eq!(String::from_utf8(got).unwrap(), wanted);
    });
    let id = logins.next().await.message.client_id.unwrap();
    hub.call(id, Call::SetContextValue("never".into(), json!(false))).await.unwrap();
    waiting.await.unwrap();
}

#[tokio::test]
async fn a_protocol_that_returns_no_length_closes_the_connection() {
    for result in ["1.5", "'x'", "nil", "-2", "1e9", "0/0", "-1", "error('x')"] {
        let source = format!(
            "function protocol_input(b) return {result} end function protocol_decode(s) return s end function on_message() end"
        );
        let (_directory, settings) = script(&source);
        let gateway = socket(settings).await;
        let address = gateway.addresses()[0];
        block(move || {
            let mut stream = dial(address);
            stream.write_all(b"hello").unwrap();
            assert_eq!(stream.read(&mut [0]).unwrap_or(0), 0, "{result}");
        })
        .await;
    }
}

#[tokio::test]
async fn the_websocket_protocol_in_lua_talks_to_a_client() {
    let source = r#"
        local websocket = require("protocols.websocket")
        function protocol_input(buf, conn) return websocket.input(buf, conn) end
        function protocol_decode(str, conn) return websocket.decode(str, conn, "/chat") end
        function protocol_encode(data) return websocket.encode(data) end
        function on_message(msg) mix.socket.tcp():send("echo " .. msg.data) end
    "#;
    let (_directory, settings) = script(source);
    let gateway = socket(settings).await;
    let address = gateway.addresses()[0];
    block(move || {
        let mut client = Client::connect(address, "/chat");
        for size in [0, 5, 200, 70_000] {
            client.text(&"x".repeat(size));
            assert_eq!(client.receive_text(), format!("echo {}", "x".repeat(size)));
        }
        client.send(Opcode::Ping, b"p");
        assert_eq!(client.receive(), crate::client::Received::Pong(b"p".to_vec()));
        client.send(Opcode::Close, &1000_u16.to_be_bytes());
        assert_eq!(client.receive_close(), Some(1000));
        assert_eq!(Client::shake(dial(address), request("/other")).1, "");
    })
    .await;
}

#[tokio::test]
async fn length_prefixed_packets_and_json_lines_work() {
    let source = |protocol: &str, message: &str| {
        format!(
            "local p = require('protocols/{protocol}')
             function protocol_input(buf) return p.input(buf) end
             function protocol_decode(str) return p.decode(str) end
             function protocol_encode(data) return p.encode(data) end
             function on_message(data) mix.socket.tcp():send({message}) end"
        )
    };
    let cases: [(&str, &str, &[u8], &[u8]); 2] = [
        ("length", "data .. '!'", b"\0\0\0\x02hi\0\0\0\0", b"\0\0\0\x03hi!\0\0\0\x01!"),
        ("jsonrpc", "{ id = data.id }", b"not json\n{\"id\":7}\n", b"{\"id\":7}\n"),
    ];
    for (protocol, message, sent, wanted) in cases {
        let (_directory, settings) = script(&source(protocol, message));
        let gateway = socket(settings).await;
        let address = gateway.addresses()[0];
        block(move || {
            let mut stream = dial(address);
            stream.write_all(sent).unwrap();
            let mut got = vec![0; wanted.len()];
            stream.read_exact(&mut got).unwrap();
            assert_eq!(got, wanted);
        })
        .await;
    }
}
