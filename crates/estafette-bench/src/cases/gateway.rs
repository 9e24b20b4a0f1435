//! The gateway: what a delivery costs the server in processor time, and an idle connection in memory.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, bail};
use estafette_gateway::{Gateway, Handlers, Message, Payload, Peer as Connection, ServerSettings};

use super::Size;
use crate::case::{Case, Loop, Rate, Target};
use crate::floor;
use crate::gateway::{Job, Server, Spec, load};
use crate::peer::gateway::{PEERS, Peer};

/// The name under which this program is started as a gateway: `AGENT PORT`.
pub const AGENT: &str = "__gateway";

/// Messages under way at once when the window is full.
const WINDOW: u32 = 64;

/// Connections that talk at the same time, for echoes and handshakes.
const CLIENTS: u32 = 100;

/// The jobs of the gateway, on one thread as the floors are.
#[must_use]
pub fn cases(size: Size) -> Vec<Case> {
    let mut cases = Vec::new();
    for (subscribers, messages) in [(1000, 2000), (5000, 400)] {
        let one = Job { subscribers, messages: size.of(messages) / 4, window: 1 };
        let full = Job { subscribers, messages: size.of(messages) * 2, window: WINDOW };
        for (job, mode, how, ratio) in
            [(one, "each", "one at a time", 0.9), (full, "coalesced", "full window", 0.85)]
        {
            let name = format!("gateway: {subscribers} subscribers, {how}, deliveries per CPU second");
            let work = move |server: &Server, spec: &Spec| deliver(server, spec, job);
            add(&mut cases, &name, mode, work, Target::RatioMin(ratio));
        }
    }
    let round_trips = size.of(300_000);
    let echo = move |server: &Server, _: &Spec| load::echo(server, CLIENTS, round_trips);
    let name = format!("gateway: echo, {CLIENTS} connections, round trips");
    cases.push(case(name, "each", echo, Target::RatioMin(0.8)));
    let connections = size.of(20_000);
    let shake = move |server: &Server, spec: &Spec| load::handshakes(server, spec, connections);
    add(&mut cases, "gateway: handshakes", "each", shake, Target::Shown);
    let (few, many) = (size.of(1000), size.of(9000));
    let idle = move |server: &Server, spec: &Spec| load::idle(server, spec, few, many);
    // At most 2 KiB each.
    add(
        &mut cases,
        "gateway: idle connections in a MiB of memory",
        "each",
        idle,
        Target::per_second_min(512),
    );
    cases
}

/// A job of the floor's and ours.
fn case(
    name: impl Into<String>,
    mode: &'static str,
    work: impl Fn(&Server, &Spec) -> anyhow::Result<Rate> + Copy + 'static,
    target: Target,
) -> Case {
    let floor = Loop::blocking(move |_| work(&start(&[floor::gateway::AGENT], &[mode])?, &Spec::PLAIN));
    let ours = Loop::blocking(move |_| work(&start(&[AGENT], &[])?, &Spec::PLAIN));
    Case::new(name, floor).ours(ours, target)
}

/// Adds a job, and the same beside each other server that is installed.
fn add(
    cases: &mut Vec<Case>,
    name: &str,
    mode: &'static str,
    work: impl Fn(&Server, &Spec) -> anyhow::Result<Rate> + Copy + 'static,
    target: Target,
) {
    cases.push(case(name, mode, work, target));
    for peer in PEERS.into_iter().filter(Peer::is_installed) {
        let name = format!("{name} ({})", peer.name);
        let theirs = Loop::blocking(move |directory| work(&peer.start(directory)?, &peer.spec));
        let ours = Loop::blocking(move |_| work(&start(&[AGENT], &[])?, &Spec::PLAIN));
        cases.push(Case::new(name, theirs).ours(ours, Target::Shown));
    }
}

/// Starts this program again: as something, with a port and what follows it.
fn start(before: &[&str], after: &[&str]) -> anyhow::Result<Server> {
    let program = std::env::current_exe().context("this program's path")?;
    Server::start(|port| {
        let mut command = Command::new(program);
        command.args(before).arg(port.to_string()).args(after);
        Ok(command)
    })
}

#[allow(clippy::print_stderr, reason = "latencies have no column of their own")]
fn deliver(server: &Server, spec: &Spec, job: Job) -> anyhow::Result<Rate> {
    let sample = load::run(server, spec, job)?;
    let (median, slow) = sample.latency;
    eprintln!("  publish to receive: {median:.1?} at the median, {slow:.1?} at the 99th percentile");
    Ok(Rate::of(sample.deliveries, sample.cpu.max(Duration::from_millis(10))))
}

/// Is a gateway on one thread until it is killed: what comes in at `/publish` reaches everybody at `/subscribe`, and what comes in at
/// `/echo` goes back.
///
/// # Errors
///
/// When it does not start.
pub fn serve(arguments: &[String]) -> anyhow::Result<()> {
    let [port] = arguments else { bail!("a port is needed") };
    let settings = ServerSettings::websocket(SocketAddr::from(([127, 0, 0, 1], port.parse()?)));
    let channel = [String::from("bench")];
    let handlers = Handlers::default()
        .on_open(move |connection, handshake| match handshake.map(|handshake| handshake.target.as_str()) {
            Some("/subscribe") => connection.subscribe(&channel).is_ok(),
            Some("/echo") => connection.set_context_value("echo", true.into()).is_ok(),
            _ => true,
        })
        .on_message(answer);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let gateway = Gateway::builder().cores(1).listen(settings).handlers(handlers).start().await?;
        std::future::pending::<()>().await;
        gateway.stop().await;
        Ok(())
    })
}

fn answer(connection: &Connection<'_>, message: Message<'_>) {
    let payload = Payload { data: message.data.to_vec().into(), kind: message.kind };
    if connection.context_value("echo").is_some() {
        // A connection that takes no more is closed by the gateway itself.
        drop(connection.send(payload));
    } else {
        connection.publish("bench", &payload);
    }
}
