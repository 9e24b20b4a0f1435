//! The bridge between a local transport and a broker that goes away.

use std::{
    collections::HashMap,
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    process::{Child, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use rustix::process::Signal;
use serde_json::Value;

use crate::vocabulary::{Place, end, program, run, signal};

/// Keys of the messages; each has an order of its own.
const KEYS: usize = 5;

/// The tests' RabbitMQ.
fn broker() -> String {
    std::env::var("ESTAFETTE_TEST_AMQP_URL").unwrap_or_else(|_| {
        panic!("ESTAFETTE_TEST_AMQP_URL is not set: run scripts/services up, then eval \"$(scripts/services env)\"")
    })
}

/// Stands between the bridge and the broker, and can be away.
struct Proxy {
    address: SocketAddr,
    is_up: Arc<AtomicBool>,
    open: Arc<Mutex<Vec<TcpStream>>>,
}

impl Proxy {
    fn to(broker: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let proxy = Self { address, is_up: Arc::new(AtomicBool::new(true)), open: Arc::default() };
        let (is_up, open) = (Arc::clone(&proxy.is_up), Arc::clone(&proxy.open));
        // Ends with the test's process.
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if !is_up.load(Ordering::SeqCst) {
                    continue;
                }
                let server = TcpStream::connect(&broker).unwrap();
                let mut open = open.lock().unwrap();
                open.extend([client.try_clone().unwrap(), server.try_clone().unwrap()]);
                pass(client.try_clone().unwrap(), server.try_clone().unwrap());
                pass(server, client);
            }
        });
        proxy
    }

    /// Cuts every connection, and each new one at once, until it is up again.
    fn goes_down(&self) {
        self.is_up.store(false, Ordering::SeqCst);
        for stream in self.open.lock().unwrap().drain(..) {
            // It may have ended by itself.
            drop(stream.shutdown(Shutdown::Both));
        }
    }

    fn comes_up(&self) {
        self.is_up.store(true, Ordering::SeqCst);
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream) {
    thread::spawn(move || -> io::Result<()> {
        let mut buffer = [0; 16 << 10];
        loop {
            let count = from.read(&mut buffer)?;
            if count == 0 {
                return to.shutdown(Shutdown::Write);
            }
            to.write_all(buffer.get(..count).unwrap_or_default())?;
        }
    });
}

/// A local place, and a queue of the broker that it forwards to through a proxy.
struct Route {
    local: Place,
    broker: String,
    through: String,
    queue: String,
    proxy: Proxy,
}

impl Route {
    fn new(name: &str) -> Self {
        let broker = broker();
        let (scheme, rest) = broker.split_once("//").unwrap();
        let (user, host) = rest.rsplit_once('@').unwrap_or(("guest:guest", rest));
        let (host, vhost) = host.split_once('/').unwrap_or((host, ""));
        let proxy = Proxy::to(host.to_owned());
        let through = format!("{scheme}//{user}@{}/{vhost}?patience=500ms", proxy.address);
        let queue = format!("{name}-{}", std::process::id());
        Self { local: Place::file(), broker, through, queue, proxy }
    }

    fn bridge(&self) -> Child {
        let arguments =
            ["bridge", "--from", &self.local.url, "out", "--to", &self.through, "--to-queue", &self.queue];
        let mut command = self.local.command(&arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// Sends numbered messages, each with the key that is its number modulo `KEYS`.
    fn publish(&self, numbers: std::ops::Range<usize>) {
        for key in 0..KEYS {
            let of_key = numbers.clone().filter(|number| number % KEYS == key);
            let lines: String = of_key.map(|number| format!("{number}\n")).collect();
            let arguments =
                ["publish", "--queue", "out", "number", "--ndjson", "--key", &key.to_string(), "--quiet"];
            self.local.run_with(&arguments, lines.as_bytes()).ok();
        }
    }

    /// Takes `count` different messages at the broker, and says how many came twice. Each key's came in order.
    fn arrive(&self, count: usize) -> usize {
        let (mut seen, mut twice) = (HashMap::<u64, u64>::new(), 0);
        let mut last: HashMap<u64, u64> = HashMap::new();
        for _ in 0..60 {
            let arguments = ["consume", &self.queue, "--url", &self.broker, "--until-empty", "--json"];
            let printed = run(program(&arguments), b"").ok();
            for line in printed.lines() {
                let message: Value = serde_json::from_str(line).unwrap();
                let number = message["data"].as_u64().unwrap();
                if *seen.entry(number).and_modify(|times| *times += 1).or_insert(1) > 1 {
                    twice += 1;
                    continue;
                }
                let before = last.insert(number % KEYS as u64, number);
                assert!(before.is_none_or(|before| before < number), "{number} came after {before:?}");
            }
            if seen.len() >= count {
                run(program(&["delete", &self.queue, "--url", &self.broker]), b"").ok();
                return twice;
            }
            thread::sleep(Duration::from_millis(200));
        }
        panic!("{} of {count} messages arrived", seen.len());
    }
}

#[test]
fn what_was_accepted_while_the_broker_was_away_arrives_in_order() {
    let route = Route::new("bridge-away");
    let bridge = route.bridge();
    route.publish(0..500);
    route.proxy.goes_down();
    route.publish(500..1500);
    thread::sleep(Duration::from_secs(1));
    route.proxy.comes_up();
    route.publish(1500..2000);
    route.arrive(2000);
    signal(bridge.id(), Signal::TERM);
    let run = end(bridge);
    assert_eq!(run.status, 0, "{}", run.stderr);
    assert_eq!(route.local.queue("out")["dead"], 0);
}

#[test]
fn a_bridge_starts_while_the_broker_is_away() {
    let route = Route::new("bridge-early");
    route.proxy.goes_down();
    let bridge = route.bridge();
    route.publish(0..100);
    thread::sleep(Duration::from_secs(1));
    route.proxy.comes_up();
    assert_eq!(route.arrive(100), 0);
    signal(bridge.id(), Signal::TERM);
    assert_eq!(end(bridge).status, 0);
}

#[test]
fn killed_bridges_lose_nothing() {
    let route = Route::new("bridge-killed");
    route.publish(0..1000);
    for round in 1..=5 {
        let mut bridge = route.bridge();
        route.publish(round * 1000..(round + 1) * 1000);
        bridge.kill().unwrap();
        bridge.wait().unwrap();
    }
    let bridge = route.bridge();
    route.arrive(6000);
    signal(bridge.id(), Signal::TERM);
    assert_eq!(end(bridge).status, 0);
}
