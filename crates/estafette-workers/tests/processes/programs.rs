//! The programs the tests start. Each is a test that is ignored, so that this very binary can be started as it.

use std::{
    fs::OpenOptions,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use estafette_core::{BoxError, Error, ErrorKind};
use estafette_workers::{Context, Limits, Restart, To, Worker, Workers, WorkersBuilder};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// The directory of the test that started this program.
pub(crate) fn root() -> PathBuf {
    std::env::var_os("TEST_ROOT").expect("started by a test").into()
}

pub(crate) fn builder(program: &str, count: u32) -> WorkersBuilder {
    tracing_subscriber::fmt().with_ansi(false).init();
    Workers::builder(count)
        .name("app")
        .runtime_root(root().join("run"))
        .arguments(["--ignored", "--exact", &format!("programs::{program}"), "--nocapture"])
        .grace(Duration::from_secs(5))
}

/// A message with a number that is never used twice.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Numbered {
    pub(crate) to: u32,
    pub(crate) number: u64,
}

/// Appends a line to a file of the test; lines of several processes do not mix.
pub(crate) fn note(root: &Path, file: &str, line: &str) {
    let mut file = OpenOptions::new().create(true).append(true).open(root.join(file)).unwrap();
    file.write_all(format!("{line}\n").as_bytes()).unwrap();
}

/// What every worker of the tests understands.
fn listen(worker: &Worker) {
    worker.on("echo", |data: Value, context: Context| async move {
        let here = context.worker().address().to_string();
        Ok::<_, Error>(json!({ "data": data, "from": context.from().to_string(), "here": here }))
    });
    worker.on("fail", |text: String, _: Context| async move { Err::<(), BoxError>(text.into()) });
    worker.on("refuse", |(): (), _: Context| async move {
        Err::<(), _>(Error::new(ErrorKind::Full, "no seats left"))
    });
    worker.on("panic", |(): (), _: Context| async move {
        assert!(std::hint::black_box(false), "on purpose");
    });
    worker.on("nap", |milliseconds: u64, _: Context| async move {
        tokio::time::sleep(Duration::from_millis(milliseconds)).await;
        Ok::<_, Error>(milliseconds)
    });
    worker.on("block", |milliseconds: u64, _: Context| async move {
        std::thread::sleep(Duration::from_millis(milliseconds));
    });
    worker.on("exit", |code: i32, _: Context| async move {
        eprintln!("about to exit with {code}");
        std::process::exit(code);
        #[allow(unreachable_code)]
        ()
    });
    worker.on("spawn", |(): (), _: Context| async move {
        let child = Command::new("sleep").arg("600").stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        Ok::<_, std::io::Error>(child.id())
    });
    let root = root();
    worker.on("note", move |text: String, context: Context| {
        let line = format!("{} {} {text}", context.worker().address(), context.from());
        note(&root, "notes", &line);
        std::future::ready(())
    });
    worker.on("long", |bytes: usize, _: Context| async move { Ok::<_, Error>("x".repeat(bytes)) });
    worker.on("counts", |(): (), context: Context| async move { Ok::<_, Error>(context.worker().counts()) });
    listen_for_orders(worker);
}

/// Orders to send and ask, so that a test sees how it goes between workers.
fn listen_for_orders(worker: &Worker) {
    worker.on("tell", |(to, text): (String, String), context: Context| async move {
        let worker = context.worker();
        let sent = match to.as_str() {
            "all" => worker.send("note", &text, To::All).await,
            "others" => worker.send("note", &text, To::Others).await,
            "any" => worker.send("note", &text, To::Any).await,
            "scheduler" => worker.send("note", &text, To::Process("scheduler")).await,
            id => worker.send("note", &text, To::One(id.parse().unwrap_or(99))).await,
        };
        sent.map(|count| count.to_string())
    });
    worker.on("ask", |to: u32, context: Context| async move {
        let wait_max = Duration::from_secs(2);
        context.worker().request::<_, Value>("echo", &"asked", To::One(to), wait_max).await
    });
    worker.on("hush", |(to, milliseconds): (u32, u64), context: Context| async move {
        let wait_max = Duration::from_millis(milliseconds / 4);
        let outcome: Result<u64, Error> =
            context.worker().request("nap", &milliseconds, To::One(to), wait_max).await;
        Ok::<_, Error>(outcome.map_err(|error| error.kind().to_string()))
    });
    worker.on("everybody", |(): (), context: Context| async move {
        let all = context.worker().request_all("nap", &300_u64, To::All, Duration::from_millis(3000)).await?;
        let line = |(address, outcome): (_, Result<u64, Error>)| format!("{address} {}", outcome.is_ok());
        Ok::<_, Error>(all.into_iter().map(line).collect::<Vec<_>>())
    });
}

async fn serve(worker: Worker) -> Result<(), Error> {
    listen(&worker);
    worker.stopping().await;
    Ok(())
}

#[test]
#[ignore = "a program that tests start"]
fn chat() {
    builder("chat", 4)
        .process("scheduler", serve)
        .supervisor(|supervisor| {
            supervisor.on("who", |(): (), context: Context| async move {
                Ok::<_, Error>(context.worker().address().to_string())
            });
        })
        .run(serve)
        .unwrap();
}

/// Workers that do not stop when they are told to.
#[test]
#[ignore = "a program that tests start"]
fn stubborn() {
    let group = builder("stubborn", 2).grace(Duration::from_millis(300));
    group.run(|_worker| std::future::pending::<Result<(), Error>>()).unwrap();
}

/// Workers that are a program of their own, with a runtime of their own, which joins the group.
#[test]
#[ignore = "a program that tests start"]
fn joined() {
    let this = std::env::current_exe().unwrap();
    let command = [this.to_str().unwrap(), "--ignored", "--exact", "programs::joining", "--nocapture"];
    builder("joined", 2).run_command(command).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a program that tests start"]
async fn joining() {
    let worker = Worker::from_environment().unwrap();
    listen(&worker);
    worker.ready();
    worker.stopping().await;
    worker.close().await;
}

#[test]
#[ignore = "a program that tests start"]
fn watched() {
    builder("watched", 2).heartbeat(Duration::from_millis(800)).run(serve).unwrap();
}

#[test]
#[ignore = "a program that tests start"]
fn frail() {
    let mut restart = Restart::default();
    restart.deaths_max = 3;
    restart.delay_first = Duration::from_millis(10);
    let outcome = builder("frail", 1).restart(restart).run(|worker| async move {
        eprintln!("worker {} cannot open its file", worker.address());
        Err::<(), BoxError>("no such file".into())
    });
    note(&root(), "outcome", &outcome.unwrap_err().report());
}

#[test]
#[ignore = "a program that tests start"]
fn slow() {
    let mut limits = Limits::default();
    limits.send_wait_max = Duration::from_millis(300);
    limits.queue_bytes_max = 64 << 10;
    builder("slow", 3)
        .limits(limits)
        .run(|worker| async move {
            listen(&worker);
            worker.on("flood", |to: u32, context: Context| async move {
                let text = "x".repeat(1000);
                for sent in 0..100_000_u32 {
                    // A nap that does not end in time: soon so many wait that nothing more is taken.
                    let slept = context.worker().send("doze", &text, To::One(to)).await;
                    if let Err(error) = slept {
                        return Ok((sent, error.kind().to_string(), error.report()));
                    }
                }
                Err(Error::new(ErrorKind::Engine, "the flood never met a limit"))
            });
            worker.on("doze", |_: String, _: Context| async {
                tokio::time::sleep(Duration::from_secs(5)).await;
            });
            worker.stopping().await;
            Ok::<_, Error>(())
        })
        .unwrap();
}

/// Every worker sends numbered messages to every other without pause until it is to stop.
#[test]
#[ignore = "a program that tests start"]
fn busy() {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let mut restart = Restart::default();
    restart.deaths_max = 1_000_000;
    restart.delay_max = Duration::from_millis(5);
    restart.delay_first = Duration::from_millis(1);
    builder("busy", 4)
        .restart(restart)
        .run(|worker| async move {
            let root = root();
            let here = worker.id().unwrap_or_default();
            worker.on("number", move |message: Numbered, _: Context| {
                note(&root, "received", &format!("{here} {} {}", message.to, message.number));
                std::future::ready(())
            });
            worker.on("double", |number: u64, _: Context| async move { Ok::<_, Error>(number * 2) });
            let mut turn = 0_u64;
            let stopping = worker.stopping();
            tokio::pin!(stopping);
            while futures_util::poll!(&mut stopping).is_pending() {
                turn += 1;
                say(&worker, here, turn, NUMBER.fetch_add(1, Ordering::Relaxed)).await?;
            }
            Ok::<_, BoxError>(())
        })
        .unwrap();
}

async fn say(worker: &Worker, here: u32, turn: u64, number: u64) -> Result<(), BoxError> {
    let root = root();
    let to = (here + 1 + u32::try_from(turn % 3)?) % 4;
    // Unique among all starts of all workers.
    let number = (u64::from(std::process::id()) << 24) + number;
    if worker.send("number", &Numbered { to, number }, To::One(to)).await.is_ok() {
        note(&root, "sent", &format!("{to} {to} {number}"));
    }
    let wait_max = Duration::from_secs(3);
    let start = std::time::Instant::now();
    let reply: Result<u64, Error> = worker.request("double", &number, To::One(to), wait_max).await;
    if reply.is_ok_and(|reply| reply != number * 2) {
        note(&root, "wrong", &format!("{here} got a reply to another request"));
    }
    if start.elapsed() > wait_max + Duration::from_secs(1) {
        note(&root, "wrong", &format!("{here} waited {:?}", start.elapsed()));
    }
    tokio::time::sleep(Duration::from_micros(500)).await;
    Ok(())
}
