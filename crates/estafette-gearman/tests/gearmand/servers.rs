//! Servers that go away and come back; several of them. Each test starts its own.

use std::{
    net::TcpListener,
    process::{Child, Command, Stdio},
};

use estafette_core::ErrorKind;

use super::*;

/// A server of this test's own, with a durable queue.
struct Server {
    folder: TempDir,
    port: u16,
    child: Option<Child>,
}

impl Server {
    fn start() -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut server = Self { folder: TempDir::new().unwrap(), port, child: None };
        server.up();
        server
    }

    fn up(&mut self) {
        let folder = self.folder.path();
        let mut command = Command::new("gearmand");
        command
            .args(["--listen=127.0.0.1", "--log-file=stderr", "-q", "libsqlite3"])
            .arg(format!("--port={}", self.port))
            .arg(format!("--libsqlite3-db={}", folder.join("queue.db").display()))
            .arg(format!("--pid-file={}", folder.join("pid").display()))
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        if std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").unwrap()) == 0 {
            command.arg("--user=root");
        }
        self.child = Some(command.spawn().expect("gearmand of the package gearman-job-server"));
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        while std::net::TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(std::time::Instant::now() < deadline, "gearmand does not answer");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

async fn place_on(servers: &[&Server], settings: &str) -> Place {
    let state = TempDir::new().unwrap();
    let hosts: Vec<_> = servers.iter().map(|server| server.address()).collect();
    let url = format!("gearman://{}?state={}{settings}", hosts.join(","), state.path().display());
    let transport = connect(&url).await;
    let queue = unique();
    transport.declare(&QueueSpec::durable(queue.clone())).await.unwrap();
    Place { state, transport, queue }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_confirmed_is_lost_when_the_server_is_killed_and_comes_back() {
    let mut server = Server::start();
    let place = place_on(&[&server], "").await;
    let mut receiver = place.receiver().await;
    let mut missing = std::collections::HashSet::new();
    for number in 0..20 {
        missing.insert(place.send(&number.to_string()).await);
    }
    // One is out when the server dies: it comes again, and its lease is lost.
    let held = take_one(&mut receiver).await;
    server.kill();
    server.up();
    missing.insert(place.send("after").await);
    let error = held.ack().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LeaseLost);
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while !missing.is_empty() {
        assert!(tokio::time::Instant::now() < deadline, "missing: {missing:?}");
        // A failed look says that the server is away; the next one tries again.
        for delivery in receiver.receive(10, Duration::from_secs(1)).await.unwrap_or_default() {
            missing.remove(&delivery.envelope().id);
            delivery.ack().await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn publishing_fails_over_and_receiving_drains_every_server() {
    let (mut one, mut two) = (Server::start(), Server::start());
    let place = place_on(&[&one, &two], "").await;
    let mut missing = std::collections::HashSet::from([place.send("to the first").await]);
    one.kill();
    missing.insert(place.send("to the second").await);
    one.up();
    let mut receiver = place.receiver().await;
    while !missing.is_empty() {
        let delivery = take_one(&mut receiver).await;
        missing.remove(&delivery.envelope().id);
        delivery.ack().await.unwrap();
    }
    two.kill();
    place.send("to the first again").await;
    take_one(&mut receiver).await.ack().await.unwrap();
}

#[tokio::test]
async fn a_server_that_is_away_is_an_error_that_names_it_within_the_patience() {
    let mut server = Server::start();
    let place = place_on(&[&server], "&patience=300ms").await;
    let mut receiver = place.receiver().await;
    server.kill();
    let outgoing = Outgoing::send(place.queue.clone(), Envelope::new(TOPIC, "x".into()));
    let error = place.transport.publish(&[outgoing]).await.remove(0).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::TimedOut), "{}", error.report());
    let error = receiver.receive(1, Duration::from_millis(500)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.report().contains(&server.address()), "{}", error.report());
    let url = format!("gearman://{}?patience=100ms", server.address());
    let Err(error) = estafette_gearman::connect(url.parse().unwrap()).await else {
        panic!("connected to a server that is away")
    };
    assert_eq!(error.kind(), ErrorKind::Unavailable);
}

#[tokio::test]
async fn a_program_that_is_no_gearman_server_is_an_error() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::io::AsyncWriteExt::write_all(&mut stream, b"HTTP/1.1 400 Bad Request\r\n\r\n")
                .await
                .unwrap();
        }
    });
    let transport = connect(&format!("gearman://{address}?patience=200ms&state=none")).await;
    let error = transport.declare(&QueueSpec::durable(unique())).await.unwrap_err();
    assert!(error.report().contains("not Gearman's protocol"), "{}", error.report());
}
