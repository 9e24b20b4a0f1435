//! A WebSocket over TLS, from a configuration file.

use std::{fs, sync::Arc, time::Duration};

use estafette_gateway::{
    config::Config,
    websocket::frame::{Opcode, encode_masked},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{ClientConfig, RootCertStore, crypto::ring, pki_types::ServerName},
};

use crate::client::request;

#[tokio::test]
async fn a_client_that_trusts_the_certificate_talks_over_tls() {
    let directory = tempfile::tempdir().unwrap();
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    fs::write(directory.path().join("cert.pem"), certified.cert.pem()).unwrap();
    fs::write(directory.path().join("key.pem"), certified.signing_key.serialize_pem()).unwrap();
    let entry = "function on_message(msg) mix.websocket():send('got ' .. #msg.data) end";
    fs::write(directory.path().join("entry.lua"), entry).unwrap();
    let text = "engine: { servers: [{ port: 0, bind: 127.0.0.1, protocol: wss, entry: entry.lua, \
                tls: { cert: cert.pem, key: key.pem } }] }";
    let config = Config::parse(text, directory.path()).unwrap();
    let gateway = config.builder().unwrap().cores(1).start().await.unwrap();

    let mut roots = RootCertStore::empty();
    roots.add(certified.cert.der().clone()).unwrap();
    let client = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(gateway.addresses()[0]).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let mut stream = TlsConnector::from(Arc::new(client)).connect(name, stream).await.unwrap();
    let talk = async {
        stream.write_all(request("/").as_bytes()).await.unwrap();
        // Larger than what TLS writes at once, and than the gateway reads at once.
        stream.write_all(&encode_masked(Opcode::Text, &[b'x'; 200_000], [1, 2, 3, 4])).await.unwrap();
        stream.flush().await.unwrap();
        let mut seen = Vec::new();
        while !seen.ends_with(b"got 200000") {
            assert!(stream.read_buf(&mut seen).await.unwrap() > 0);
        }
    };
    tokio::time::timeout(Duration::from_secs(20), talk).await.unwrap();

    // Who does not speak TLS is not served, and does not hold the port up.
    let mut plain = TcpStream::connect(gateway.addresses()[0]).await.unwrap();
    plain.write_all(request("/").as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(20), plain.read_to_end(&mut answer)).await;
    drop(ended.unwrap());
    assert!(!answer.starts_with(b"HTTP"));
    drop(stream);
    gateway.stop().await;
}

#[test]
fn a_key_that_is_none_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("cert.pem"), "no certificate").unwrap();
    let path = directory.path().join("cert.pem");
    assert!(estafette_gateway::tls::config(&path, &path).is_err());
}
