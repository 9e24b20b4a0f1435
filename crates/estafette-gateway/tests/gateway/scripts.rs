//! A gateway driven by scripts, over real sockets.

use std::{fs, net::SocketAddr, time::Duration};

use estafette_gateway::{
    Call, ConnectionId, Gateway, Payload, ServerSettings, Service, lua::ScriptSettings,
    websocket::frame::Opcode,
};
use serde_json::json;
use tempfile::TempDir;

use crate::client::{Client, until};

pub(crate) const LOCAL: ([u8; 4], u16) = ([127, 0, 0, 1], 0);

/// A directory with one script in it.
pub(crate) fn script(source: &str) -> (TempDir, ScriptSettings) {
    let directory = tempfile::tempdir().unwrap();
    let entry = directory.path().join("entry.lua");
    fs::write(&entry, source).unwrap();
    let settings = ScriptSettings {
        reload: Some(Duration::ZERO),
        time_max: Duration::from_millis(300),
        ..ScriptSettings::new(entry)
    };
    (directory, settings)
}

async fn websocket(settings: ScriptSettings) -> Gateway {
    let mut server = ServerSettings::websocket(SocketAddr::from(LOCAL));
    server.options = vec![("greeting".into(), "hello".into())];
    server.limits.wait_time = Duration::from_secs(5);
    Gateway::builder().cores(1).serve(server, Service::script(settings)).start().await.unwrap()
}

pub(crate) async fn block<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

/// Every message is code, whose result is the answer; what it raises too.
const EVALUATE: &str = r#"
    function on_message(msg)
        local chunk, problem = loadstring(msg.data)
        if not chunk then return mix.websocket():send("syntax: " .. problem) end
        local results = { pcall(chunk) }
        for i = 1, 4 do results[i] = tostring(results[i]) end
        mix.websocket():send(table.concat(results, "|"))
    end
"#;

/// What each piece of code answers; nothing certain if empty.
async fn evaluate(cases: Vec<(&'static str, &'static str)>) {
    let (_directory, settings) = script(EVALUATE);
    let gateway = websocket(settings).await;
    let address = gateway.addresses()[0];
    block(move || {
        let mut client = Client::connect(address, "/");
        let mut may_skip = false;
        for (code, answer) in cases {
            client.text(code);
            // What was stopped may or may not have been able to answer.
            if answer.is_empty() {
                may_skip = true;
                continue;
            }
            let mut got = client.receive_text();
            if std::mem::take(&mut may_skip) && !got.starts_with(answer) {
                got = client.receive_text();
            }
            assert!(got.starts_with(answer), "{code}\n  {got}\n  {answer}");
        }
    })
    .await;
}

#[tokio::test]
async fn the_functions_of_mix_do_what_they_say() {
    evaluate(vec![
        (r#"return mix.json_encode({ a = { 1, 2 }, b = {} })"#, r#"true|{"a":[1,2],"b":[]}|nil"#),
        (r#"return mix.json_decode('{"a":[true,null,"x"]}').a[3]"#, "true|x|nil"),
        (r#"return mix.json_decode('{')"#, "true|nil|EOF"),
        (r#"return mix.base64_encode("hi"), mix.base64_decode("aGk=")"#, "true|aGk=|hi"),
        (r#"return mix.md5("a"), #mix.sha1_bin("a")"#, "true|0cc175b9c0f1b6a831c399e269772661|20"),
        (r#"return table.concat(mix.str_split("a,b,,c", ","), "-")"#, "true|a-b--c|"),
        (r#"return mix.parse_str("a=1&b=x%20y").b"#, "true|x y|"),
        (r#"local u = mix.parse_url("http://u:p@h:80/p?q=1#f") return u.host, u.port, u.query"#, "true|h|80|q=1"),
        (r#"return mix.bytes_tostring({ 104, 105 })"#, "true|hi|"),
        (r#"return mix.php_unpack("H*", mix.php_pack("Nna3H4", 258, -1, "x", "4142"))["1"]"#, "true|00000102ffff7800004142|"),
        (r#"return #mix.php_pack("C*", 1, 2, 3), mix.php_pack("N")"#, "true|3|nil|there are fewer"),
        (r#"local t = mix.php_unpack("Nlen/nport/a2name", "\0\0\1\2\0\80hi") return t.len, t.port, t.name"#, "true|258|80|hi"),
        (r#"local t = mix.php_unpack("c2n", "\255\1") return t.n1, t.n2, mix.php_unpack("N", "x")"#, "true|-1|1|nil"),
        (r#"return mix.php_unpack("H*", "AB")["1"], mix.php_pack("Z", 1), mix.php_pack("a99999999999", "")"#, "true|4142|nil|nil"),
        (r#"return mix.server.option("greeting"), mix.server.option("none")"#, "true|hello|nil"),
        (r#"return mix.queue.push("q", { a = 1 })"#, "true|1|nil"),
        (r#"return mix.queue.push("q", "text")"#, "true|nil|the text is not JSON"),
        (r#"return mix.queue.push("q", "1")"#, "true|nil|what is pushed must be"),
        (r#"return mix.mesh.publish("nobody", "x")"#, "true|0|0"),
        (r#"return mix.mesh.send("17", "x")"#, "true|there is no such connection|"),
        (r#"return type(mix.websocket():client_id()), require("bit").bor(1, 2)"#, "true|string|3"),
        (r#"local c = mix.websocket() c:set_context({ a = 1 }) return c:context().a, c:context_value("b")"#, "true|1|nil"),
        (r#"return mix.websocket():subscribe("a", ("x"):rep(300))"#, "true|the channel's name is"),
        (r#"print("printed", 1, {}) mix.log(mix.WARN, "logged") return 1"#, "true|1|"),
    ])
    .await;
}

#[tokio::test]
async fn a_script_cannot_leave_its_sandbox() {
    evaluate(vec![
        ("return os.exit, os.execute, os.getenv, io", "true|nil|nil|nil"),
        ("return package.loadlib, dofile, loadfile, debug", "true|nil|nil|nil"),
        ("return string.dump, jit, ffi", "true|nil|nil|nil"),
        (r#"return loadstring("\27LJ")"#, "true|nil|bytecode cannot be loaded"),
        (r#"return load(function() return "\27LJ" end)"#, "true|nil|only text can be loaded"),
        (r#"return pcall(require, "../secret")"#, "true|false|module '../secret' is not there"),
        (r#"return pcall(require, "/etc/passwd")"#, "true|false|module"),
        (r#"return pcall(require, "ffi")"#, "true|false|module 'ffi' is not there"),
        (r#"return getmetatable(mix.websocket())"#, "true|false|"),
        (r#"return require("os").exit, package.loaders, package.searchpath"#, "true|nil|nil|nil"),
        (r#"return pcall(require, "jit")"#, "true|false|module 'jit' is not there"),
        (r#"return pcall(require, "jit.util")"#, "true|false|module 'jit.util' is not there"),
        (r#"getmetatable("").__index = nil return 1"#, "true|1|"),
    ])
    .await;
}

#[tokio::test]
async fn a_script_that_goes_mad_is_stopped_and_the_next_message_is_answered() {
    evaluate(vec![
        ("while true do end", ""),
        ("return 1", "true|1|"),
        ("while true do pcall(function() while true do end end) end", ""),
        ("return 5", "true|5|"),
        ("local function f() return 1 + f() end return f()", "false|"),
        ("return 2", "true|2|"),
        ("local t = {} for i = 1, 1e9 do t[i] = ('x'):rep(1e6) .. i end", ""),
        ("return 3", "true|3|"),
        ("return ('x'):rep(1e10)", "false|"),
        (r#"return string.find(("a"):rep(30000), ".-.-.-.-b")"#, "false|"),
        (r#"return string.find("key = value", "^(%w+)%s*=%s*(%w+)$")"#, "true|1|11|key"),
        (r#"local t = {} t.t = t return mix.json_encode(t)"#, "true|nil|the value is nested too deeply"),
        (r#"return mix.json_encode({ print })"#, "true|nil|a function cannot be written"),
        (r#"return mix.json_encode("\255")"#, "true|nil|a text is not UTF-8"),
        (r#"return mix.json_encode(0/0)"#, "true|nil|"),
        (r#"return mix.json_decode(("["):rep(10000))"#, "true|nil|recursion limit"),
        (
            r#"return mix.websocket():set_context_value("k", ("x"):rep(70000))"#,
            "true|the context is too large|",
        ),
        (r#"return mix.websocket():set_context_value("k", function() end)"#, "true|a function cannot be"),
        (r#"return mix.websocket():send("\255", "text")"#, "true|the text is not UTF-8|"),
        ("_G.on_close = nil string.find = nil coroutine, tostring = nil return 4", ""),
    ])
    .await;
}

/// The chat of the documents, with a login that a backend answers.
const CHAT: &str = r#"
    function on_handshake(id, headers, server)
        if server.RequestUri == "/closed" then mix.websocket():close() end
    end
    function on_message(msg)
        local conn = mix.websocket()
        local data, err = mix.json_decode(msg.data)
        if err then conn:close() return end
        local n, err = mix.queue.push("chat", { frame = { data = data, type = msg.type } })
        if err then conn:send(err) end
        if data.op == "auth" then
            local uid, err = conn:wait_context_value("uid")
            conn:send("uid " .. tostring(uid) .. " " .. tostring(err))
        end
    end
"#;

#[tokio::test]
async fn a_login_waits_for_the_backend_and_holds_what_follows() {
    let (_directory, settings) = script(CHAT);
    let gateway = websocket(settings).await;
    let (address, hub) = (gateway.addresses()[0], gateway.hub().clone());
    let mut backend = hub.queues().register(&["chat".into()]).unwrap();
    let mut client = block(move || {
        let mut client = Client::connect(address, "/");
        client.text(r#"{"op":"auth"}"#);
        client.text(r#"{"op":"next"}"#);
        client.send(Opcode::Ping, b"still there");
        assert_eq!(client.receive(), crate::client::Received::Pong(b"still there".to_vec()));
        client
    })
    .await;
    let login = backend.next().await.message.clone();
    let id: ConnectionId = login.client_id.unwrap();
    assert_eq!(login.data.get(), r#"{"frame":{"data":{"op":"auth"},"type":"text"}}"#);
    assert_eq!(hub.queues().depths()[0].messages, 0);
    hub.call(id, Call::SetContextValue("other".into(), json!(1))).await.unwrap();
    assert_eq!(hub.queues().depths()[0].messages, 0);
    hub.call(id, Call::SetContextValue("uid".into(), json!(0))).await.unwrap();
    assert!(backend.next().await.message.data.get().contains("next"));
    hub.send(id, Payload::text("welcome")).await.unwrap();
    block(move || {
        assert_eq!((client.receive_text(), client.receive_text()), ("uid 0 nil".into(), "welcome".into()));
        // Set before the wait: no wait.
        client.text(r#"{"op":"auth"}"#);
        assert_eq!(client.receive_text(), "uid 0 nil");
        // Never answered: the wait ends by itself. A flood meanwhile is not read, and not lost.
        let mut late = Client::connect(address, "/");
        late.text(r#"{"op":"auth"}"#);
        for _ in 0..100 {
            late.text(r#"{"op":"flood"}"#);
        }
        assert_eq!(late.receive_text(), "uid nil timeout");
        // Closed while it waits.
        let mut gone = Client::connect(address, "/");
        gone.text(r#"{"op":"auth"}"#);
        drop(gone);
        assert_eq!(Client::connect(address, "/closed").receive_close(), Some(1000));
    })
    .await;
    for _ in 0..103 {
        backend.next().await;
    }
    until("all gone", || hub.stats().connections == 0);
    assert_eq!(hub.stats().script_errors, 0);
}

#[tokio::test]
async fn a_changed_script_takes_over_and_a_broken_one_does_not() {
    let version = |n: u32| {
        format!(
            "function on_message(m) mix.queue.push('held', {{}}) local c = mix.websocket() \
             local v = c:wait_context_value('go') c:send('{n} ' .. tostring(v)) end"
        )
    };
    let (directory, settings) = script(&version(1));
    let entry = directory.path().join("entry.lua");
    let mut server = ServerSettings::websocket(SocketAddr::from(LOCAL));
    server.limits.wait_time = Duration::from_secs(600);
    let gateway = Gateway::builder().cores(1).serve(server, Service::script(settings)).start().await.unwrap();
    let mut held = gateway.hub().queues().register(&["held".into()]).unwrap();
    let (address, hub) = (gateway.addresses()[0], gateway.hub().clone());
    let mut client = block(move || {
        let mut client = Client::connect(address, "/");
        client.text("held");
        client
    })
    .await;
    for (n, broken) in
        ["function on_message(", "x = 1", "error('no')", "while true do end"].iter().enumerate()
    {
        fs::write(&entry, broken).unwrap();
        until("refused", || hub.stats().script_reload_errors == n as u64 + 1);
    }
    let mut other = block(move || {
        let mut other = Client::connect(address, "/");
        other.text("held");
        other
    })
    .await;
    fs::write(&entry, version(22)).unwrap();
    until("reloaded", || hub.stats().script_reloads == 1);
    for _ in 0..2 {
        let id = held.next().await.message.client_id.unwrap();
        hub.call(id, Call::SetContextValue("go".into(), json!(7))).await.unwrap();
    }
    block(move || {
        // Waits that began in the old version end there; new messages go to the new one.
        assert_eq!((client.receive_text(), other.receive_text()), ("1 7".into(), "1 7".into()));
        client.text("again");
        assert_eq!(client.receive_text(), "22 7");
    })
    .await;
}

#[tokio::test]
async fn a_script_that_does_not_work_does_not_start() {
    for source in
        ["function on_message(", "", "on_message = 1", "os.exit(1)", "while true do end", "error('x')"]
    {
        let (_directory, settings) = script(source);
        let server = ServerSettings::websocket(SocketAddr::from(LOCAL));
        let started = Gateway::builder().cores(1).serve(server, Service::script(settings)).start().await;
        assert!(started.is_err(), "{source}");
    }
}
