//! Programs, relays and consumers are killed at random; in the long form the broker and the database, too. In the end every
//! order that was committed has exactly one effect.
//!
//! The processes are this test binary, told by the environment which role to play.

mod roles;

use std::{
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use estafette_core::{QueueName, QueueSpec};
use estafette_outbox::Dialect;

use crate::support::Base;
use roles::{Role, broker};

/// How long the processes may take to finish once the killing is over.
const FINISH_MAX: Duration = Duration::from_secs(90);

/// Who runs at the same time.
const CREW: [Role; 5] = [Role::Program, Role::Program, Role::Relay, Role::Relay, Role::Consumer];

#[tokio::test]
async fn on_sqlite_every_order_has_one_effect() {
    torment(Dialect::Sqlite).await;
}

#[tokio::test]
async fn on_postgres_every_order_has_one_effect() {
    torment(Dialect::Postgres).await;
}

#[tokio::test]
async fn on_mysql_every_order_has_one_effect() {
    torment(Dialect::MySql).await;
}

/// What a process of the torment runs; nothing when it is run as a test.
#[test]
#[ignore = "a process of the other tests"]
fn child() {
    roles::play();
}

/// One process, killed when it is dropped.
struct Victim {
    role: Role,
    child: Child,
}

impl Victim {
    fn start(role: Role, database: &str, queue: &QueueName) -> Self {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "crash::child", "--ignored", "--nocapture"])
            .env(roles::ROLE, role.name())
            .env(roles::DATABASE, database)
            .env(roles::QUEUE, queue.as_str())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self { role, child }
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

async fn torment(dialect: Dialect) {
    let is_long = std::env::var_os("ESTAFETTE_TEST_LONG").is_some();
    let base = Base::new(dialect).await;
    let broker = broker().await;
    // A topic of its own: several of these tests share the broker.
    let queue = QueueSpec::durable(QueueName::unique());
    let queue =
        queue.clone().subscribe(format!("crash.{}", roles::word(&queue.name)).as_str().try_into().unwrap());
    broker.declare(&queue).await.unwrap();
    let start = |role| Victim::start(role, &base.url, &queue.name);
    let mut victims: Vec<Victim> = CREW.into_iter().map(start).collect();
    let mut random = fastrand::Rng::new();
    for round in 0..if is_long { 40 } else { 12 } {
        tokio::time::sleep(Duration::from_millis(random.u64(100..400))).await;
        let victim = victims.swap_remove(random.usize(..victims.len()));
        let role = victim.role;
        drop(victim);
        if is_long && round % 4 == 3 {
            let server = [Some("rabbitmq"), server(dialect)][random.usize(..2)];
            if let Some(server) = server {
                services(&["kill", server]);
                tokio::time::sleep(Duration::from_millis(random.u64(..500))).await;
                services(&["start", server]);
            }
        }
        victims.push(start(role));
    }
    // Programs end as they live; the others have to finish what is there.
    victims.retain(|victim| victim.role != Role::Program);
    finish(&base).await;
    drop(victims);
    check(&base).await;
    broker.admin().delete(&queue.name).await.unwrap();
}

/// Waits until nothing is left to be published, and every order has its effect. The broker alone does not tell: it does not count
/// what it has handed over.
async fn finish(base: &Base) {
    let deadline = Instant::now() + FINISH_MAX;
    let mut link = base.link().await;
    loop {
        let status = base.store.status().await.unwrap();
        let orders = link.number("SELECT count(*) FROM orders").await;
        let effects = link.number("SELECT count(*) FROM effects").await;
        if status.waiting == 0 && effects >= orders {
            assert_eq!(status.failed, 0, "{status:?}");
            return;
        }
        assert!(
            Instant::now() < deadline,
            "not finished within {FINISH_MAX:?}: {status:?}, {effects} of {orders} effects"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn check(base: &Base) {
    let mut link = base.link().await;
    let orders = link.number("SELECT count(*) FROM orders").await;
    let events = link.number("SELECT count(*) FROM estafette_outbox").await;
    let consumed = link.number("SELECT count(*) FROM estafette_inbox").await;
    let effects = link.number("SELECT count(*) FROM effects").await;
    let distinct = link.number("SELECT count(DISTINCT id) FROM effects").await;
    let without =
        "SELECT count(*) FROM orders LEFT JOIN effects ON effects.id = orders.id WHERE effects.id IS NULL";
    assert_eq!(link.number(without).await, 0, "orders without an effect");
    assert!(orders > 20, "only {orders} orders");
    assert_eq!((events, consumed, effects, distinct), (orders, orders, orders, orders));
}

fn server(dialect: Dialect) -> Option<&'static str> {
    match dialect {
        Dialect::Postgres => Some("postgres"),
        Dialect::MySql => Some("mariadb"),
        Dialect::Sqlite => None,
    }
}

/// Runs the script that has the servers. Those of the environment are its own.
fn services(arguments: &[&str]) {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../scripts/services");
    let status = Command::new(script).args(arguments).stdout(Stdio::null()).status().unwrap();
    assert!(status.success(), "scripts/services {arguments:?}");
}
