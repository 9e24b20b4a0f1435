//! The load: one runtime on one thread, so that what it spends is small beside the server.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::client;
use super::process::{Server, Spec};
use crate::case::Rate;

/// The size of a message that is published.
pub const BODY_BYTES: usize = 128;

/// How long one message may take to reach everybody.
const PATIENCE: Duration = Duration::from_secs(20);

/// After how long everybody who connected is a subscriber, and memory has settled.
const SETTLE: Duration = Duration::from_millis(500);

/// Handshakes at a time while connections are made.
const CONNECTING: usize = 64;

/// What is done.
#[derive(Debug, Clone, Copy)]
pub struct Job {
    /// How many connections subscribe.
    pub subscribers: u32,
    /// How many messages are published.
    pub messages: u32,
    /// How many of them may be under way at once: 1 waits for each to reach everybody.
    pub window: u32,
}

/// What came of it.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// Messages times subscribers.
    pub deliveries: u32,
    /// The processor time the server spent meanwhile.
    pub cpu: Duration,
    /// From publishing to receiving, at the median and in the hundredth slowest of deliveries.
    pub latency: (Duration, Duration),
}

struct State {
    sent_at: RefCell<Vec<Instant>>,
    /// How many subscribers each message has reached.
    reached: RefCell<Vec<u32>>,
    latencies: RefCell<Vec<u32>>,
    received: Cell<u64>,
    changed: Notify,
}

/// Publishes to so many subscribers, and waits until everything has reached everybody.
///
/// # Errors
///
/// Those of the connections, and messages that are lost, doubled or late.
pub fn run(server: &Server, spec: &Spec, job: Job) -> anyhow::Result<Sample> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, publish(server, spec, job))
}

async fn publish(server: &Server, spec: &Spec, job: Job) -> anyhow::Result<Sample> {
    let state = Rc::new(State {
        sent_at: RefCell::default(),
        reached: RefCell::new(vec![0; usize::try_from(job.messages)?]),
        latencies: RefCell::default(),
        received: Cell::new(0),
        changed: Notify::new(),
    });
    let mut subscribers = JoinSet::new();
    for stream in connect_all(server, spec, job.subscribers).await? {
        subscribers.spawn_local(subscriber(stream, Rc::clone(&state)));
    }
    let (mut publisher, _) = client::connect(server.address, spec.publish_path).await?;
    tokio::time::sleep(SETTLE).await;
    let before = server.cpu()?;
    for number in 0..job.messages {
        let goal = u64::from(number.saturating_sub(job.window - 1)) * u64::from(job.subscribers);
        wait(&state, goal, &mut subscribers).await?;
        let frame = client::text(&message(spec, number));
        state.sent_at.borrow_mut().push(Instant::now());
        publisher.write_all(&frame).await?;
    }
    let deliveries = job.messages * job.subscribers;
    wait(&state, u64::from(deliveries), &mut subscribers).await?;
    let cpu = server.cpu()?.saturating_sub(before);
    let reached = state.reached.borrow();
    ensure!(reached.iter().all(|count| *count == job.subscribers), "a message reached somebody twice");
    let mut latencies = state.latencies.borrow().clone();
    latencies.sort_unstable();
    let at = |part: usize| {
        let nanoseconds = latencies.get((latencies.len() * part / 100).min(latencies.len() - 1));
        nanoseconds.map(|&nanoseconds| Duration::from_nanos(u64::from(nanoseconds))).unwrap_or_default()
    };
    Ok(Sample { deliveries, cpu, latency: (at(50), at(99)) })
}

/// Text that says which message it is, wherever it stands in what arrives.
fn message(spec: &Spec, number: u32) -> Vec<u8> {
    let (before, after) = spec.around;
    let mut body = format!("#{number:010}");
    body.extend(std::iter::repeat_n('x', BODY_BYTES - body.len()));
    [before.as_bytes(), body.as_bytes(), after.as_bytes()].concat()
}

fn number_in(payload: &[u8]) -> Option<u32> {
    let at = payload.iter().position(|&byte| byte == b'#')?;
    std::str::from_utf8(payload.get(at + 1..at + 11)?).ok()?.parse().ok()
}

/// Connects so many subscribers.
///
/// # Errors
///
/// Those of the connections.
pub async fn connect_all(server: &Server, spec: &Spec, count: u32) -> anyhow::Result<Vec<TcpStream>> {
    let mut connecting = JoinSet::new();
    let mut streams = Vec::new();
    let (address, spec) = (server.address, spec.clone());
    let mut left = count;
    while left > 0 || !connecting.is_empty() {
        if left > 0 && connecting.len() < CONNECTING {
            left -= 1;
            let spec = spec.clone();
            connecting.spawn(async move {
                let (mut stream, rest) = client::connect(address, spec.subscribe_path).await?;
                ensure!(rest.is_empty(), "something came before anything was published");
                if let Some(subscribe) = spec.subscribe {
                    stream.write_all(&client::text(subscribe.as_bytes())).await?;
                }
                Ok(stream)
            });
        } else if let Some(stream) = connecting.join_next().await {
            streams.push(stream??);
        }
    }
    Ok(streams)
}

/// So many clients that each send a message and wait for it to come back: round trips a second.
///
/// # Errors
///
/// Those of the connections.
pub fn echo(server: &Server, clients: u32, round_trips: u32) -> anyhow::Result<Rate> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let address = server.address;
    runtime.block_on(async {
        let mut talking = JoinSet::new();
        let mut streams = Vec::new();
        for _ in 0..clients {
            streams.push(client::connect(address, "/echo").await?.0);
        }
        let started = Instant::now();
        for mut stream in streams {
            talking.spawn(async move {
                let frame = client::text(&[b'x'; BODY_BYTES]);
                // The server's frame is shorter by the mask.
                let mut answer = vec![0; frame.len() - 4];
                for _ in 0..round_trips / clients {
                    stream.write_all(&frame).await?;
                    stream.read_exact(&mut answer).await?;
                }
                anyhow::Ok(())
            });
        }
        while let Some(talked) = talking.join_next().await {
            talked??;
        }
        Ok(Rate::of(round_trips, started.elapsed()))
    })
}

/// Connections a second, each closed again once its handshake is done.
///
/// # Errors
///
/// Those of the connections.
pub fn handshakes(server: &Server, spec: &Spec, connections: u32) -> anyhow::Result<Rate> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (address, path) = (server.address, spec.subscribe_path);
    runtime.block_on(async {
        let started = Instant::now();
        let mut connecting = JoinSet::new();
        for _ in 0..connections {
            if connecting.len() >= CONNECTING
                && let Some(connected) = connecting.join_next().await
            {
                connected??;
            }
            connecting.spawn(async move { client::connect(address, path).await.map(drop) });
        }
        while let Some(connected) = connecting.join_next().await {
            connected??;
        }
        Ok(Rate::of(connections, started.elapsed()))
    })
}

/// How many idle connections fit into a MiB of the server's memory, by what `many` more than `few` take.
///
/// # Errors
///
/// Those of the connections.
pub fn idle(server: &Server, spec: &Spec, few: u32, many: u32) -> anyhow::Result<Rate> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let some = connect_all(server, spec, few).await?;
        tokio::time::sleep(SETTLE).await;
        let before = server.memory()?;
        let more = connect_all(server, spec, many).await?;
        tokio::time::sleep(SETTLE).await;
        let grown = server.memory()?.saturating_sub(before).max(1);
        drop((some, more));
        Ok(Rate::of(many, Duration::try_from_secs_f64(as_mebibytes(grown))?))
    })
}

#[allow(clippy::cast_precision_loss, reason = "memory is far below 2^52 bytes")]
fn as_mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; 256 << 10]);
}

async fn subscriber(stream: TcpStream, state: Rc<State>) -> anyhow::Result<()> {
    // What is left of a frame that was cut; mostly nothing.
    let mut rest = Vec::new();
    loop {
        stream.readable().await?;
        let done = SCRATCH.with_borrow_mut(|scratch| match stream.try_read(scratch) {
            Ok(0) => anyhow::bail!("the server hung up"),
            Ok(count) => {
                let came = scratch.get(..count).unwrap_or_default();
                if rest.is_empty() {
                    let taken = client::frames(came, |payload| state.take(payload))?;
                    rest.extend_from_slice(came.get(taken..).unwrap_or_default());
                } else {
                    rest.extend_from_slice(came);
                    let taken = client::frames(&rest, |payload| state.take(payload))?;
                    rest.drain(..taken);
                }
                Ok(())
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error.into()),
        });
        done?;
    }
}

impl State {
    fn take(&self, payload: &[u8]) {
        // An answer to a subscription has no number.
        let Some(number) = number_in(payload).and_then(|number| usize::try_from(number).ok()) else { return };
        if let (Some(count), Some(sent_at)) =
            (self.reached.borrow_mut().get_mut(number), self.sent_at.borrow().get(number))
        {
            *count += 1;
            let nanoseconds = u32::try_from(sent_at.elapsed().as_nanos()).unwrap_or(u32::MAX);
            self.latencies.borrow_mut().push(nanoseconds);
        }
        self.received.set(self.received.get() + 1);
        self.changed.notify_one();
    }
}

/// Waits until so many deliveries have come.
async fn wait(state: &State, goal: u64, subscribers: &mut JoinSet<anyhow::Result<()>>) -> anyhow::Result<()> {
    let waiting = async {
        while state.received.get() < goal {
            tokio::select! {
                () = state.changed.notified() => {}
                ended = subscribers.join_next() => {
                    ended.context("no subscriber is left")???;
                }
            }
        }
        anyhow::Ok(())
    };
    let late = || format!("only {} of {goal} deliveries came", state.received.get());
    tokio::time::timeout(PATIENCE, waiting).await.with_context(late)?
}
