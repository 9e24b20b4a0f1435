//! A server that is killed and started again while messages pass: nothing that was published is lost, and no program needs to
//! be started again.

use std::{
    collections::HashSet,
    path::Path,
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use estafette_core::{ErrorKind, Transport as _};
use estafette_sql::SqlTransport;
use sqlx::Connection as _;

use crate::common::{PATIENCE, ack_all, number_of, open_with_queue, receiver, send};

/// A server of this test's own, on data of its own.
struct Server {
    name: &'static str,
    folder: tempfile::TempDir,
}

impl Server {
    fn start(name: &'static str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        // PostgreSQL's user passes through it.
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o711);
        std::fs::set_permissions(folder.path(), open).unwrap();
        let server = Self { name, folder };
        server.services("start");
        server
    }

    fn services(&self, command: &str) {
        services(self.folder.path(), &[command, self.name]);
    }

    fn port(&self) -> String {
        std::fs::read_to_string(self.folder.path().join(format!("{}.port", self.name))).unwrap().trim().into()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        services(self.folder.path(), &["down"]);
    }
}

fn services(folder: &Path, arguments: &[&str]) {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../scripts/services");
    let status = Command::new(script).args(arguments).env("ESTAFETTE_SERVICES", folder).status().unwrap();
    assert!(status.success(), "scripts/services {arguments:?}");
}

#[derive(Default)]
struct Seen {
    stored: Mutex<Vec<usize>>,
    came: Mutex<HashSet<usize>>,
    stopped: AtomicBool,
}

async fn publish(transport: SqlTransport, seen: Arc<Seen>) {
    for start in (0..).step_by(3) {
        if seen.stopped.load(Ordering::Relaxed) {
            return;
        }
        match send(&transport, start..start + 3).await {
            Ok(()) => seen.stored.lock().unwrap().extend(start..start + 3),
            // Stored or not: nobody knows, and the numbers are not used again.
            Err(error) if error.kind() == ErrorKind::TimedOut => {}
            Err(error) => panic!("the server was not waited for: {}", error.report()),
        }
    }
}

async fn consume(transport: SqlTransport, seen: Arc<Seen>) {
    // Short, so that what a claim lost with the server held comes soon.
    let mut receiver = receiver(&transport, Duration::from_secs(2)).await;
    loop {
        match receiver.receive(10, PATIENCE).await {
            Ok(taken) => {
                seen.came.lock().unwrap().extend(taken.iter().map(number_of));
                // An acknowledgement that fails means that the message comes again, or was gone already.
                drop(ack_all(taken).await);
            }
            Err(error) => panic!("the server was not waited for: {}", error.report()),
        }
    }
}

async fn until(what: &str, holds: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + PATIENCE * 2;
    while !holds().await {
        assert!(Instant::now() < deadline, "{what} did not come about");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn survives(server: &Server, url: &str) {
    let transport = open_with_queue(url).await;
    let seen = Arc::new(Seen::default());
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..2 {
        tasks.spawn(consume(transport.clone(), Arc::clone(&seen)));
    }
    let publisher = tokio::spawn(publish(transport.clone(), Arc::clone(&seen)));
    for round in 1..=3 {
        let before = seen.came.lock().unwrap().len();
        let passes = async || seen.came.lock().unwrap().len() > before + 50;
        until("messages that pass", passes).await;
        tokio::task::block_in_place(|| {
            server.services("kill");
            server.services("start");
        });
        assert!(tasks.try_join_next().is_none() && !publisher.is_finished(), "round {round}");
    }
    let before = seen.came.lock().unwrap().len();
    until("messages that pass again", async || seen.came.lock().unwrap().len() > before + 50).await;
    seen.stopped.store(true, Ordering::Relaxed);
    publisher.await.unwrap();
    let all_came = async || {
        let came = seen.came.lock().unwrap();
        seen.stored.lock().unwrap().iter().all(|number| came.contains(number))
    };
    until("every message that was stored", all_came).await;
    tasks.abort_all();
    transport.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_killed_three_times_loses_nothing_and_is_waited_for() {
    let server = Server::start("postgres");
    survives(&server, &format!("postgres://postgres@127.0.0.1:{}/postgres", server.port())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mariadb_killed_three_times_loses_nothing_and_is_waited_for() {
    let server = Server::start("mariadb");
    let address = format!("mysql://root@127.0.0.1:{}", server.port());
    let mut connection = sqlx::MySqlConnection::connect(&format!("{address}/mysql")).await.unwrap();
    sqlx::raw_sql("CREATE DATABASE shop").execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    survives(&server, &format!("{address}/shop")).await;
}
