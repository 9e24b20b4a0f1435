//! What signals do to a consumer, in a process of its own: this test's executable, started again.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    reason = "tests fail by panicking, and talk by printing"
)]

use std::{
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::Duration,
};

use estafette_consumer::{Consumer, Context};
use estafette_core::{Bytes, Envelope, Outgoing, Topic, Transport};
use estafette_memory::MemoryTransport;
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::AsyncBufReadExt as _,
    signal::unix::{SignalKind, signal},
};

const LINE_WAIT_MAX: Duration = Duration::from_secs(30);

/// The child: ten messages; each handler says that it begins and ends when a line comes in.
#[test]
#[ignore = "started by the tests of this file as a process of its own"]
fn child() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let memory = MemoryTransport::new();
        for _ in 0..10 {
            let envelope = Envelope::new(Topic::from_static("order.created"), Bytes::new());
            memory
                .publish(&[Outgoing::send("billing".try_into().unwrap(), envelope)])
                .await
                .pop()
                .unwrap()
                .unwrap();
        }
        let (mut terminate, mut interrupt) =
            (signal(SignalKind::terminate()).unwrap(), signal(SignalKind::interrupt()).unwrap());
        tokio::spawn(async move {
            loop {
                tokio::select! { _ = terminate.recv() => {} _ = interrupt.recv() => {} }
                println!("signalled");
            }
        });
        let handler = |_: Context| async {
            println!("began");
            let mut line = String::new();
            tokio::io::BufReader::new(tokio::io::stdin()).read_line(&mut line).await.unwrap();
        };
        let transport = std::sync::Arc::new(memory.clone());
        let consumer =
            Consumer::new(transport, "billing").grace(Duration::from_secs(3600)).handle_any(handler);
        let summary = consumer.run().await.unwrap();
        let left = memory.admin().queue(&"billing".try_into().unwrap()).await.unwrap();
        println!("summary: {summary}; ready {}, leased {}", left.ready, left.leased);
        // The thread that reads the standard input never ends.
        std::process::exit(0);
    });
}

struct Worker {
    process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Worker {
    fn start() -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child", "--ignored", "--nocapture"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (input, output) = (process.stdin.take().unwrap(), process.stdout.take().unwrap());
        Self { process, input, output: BufReader::new(output) }
    }

    /// Reads on to a line that contains `text`, and returns it.
    fn expect(&mut self, text: &str) -> String {
        let mut line = String::new();
        while !line.contains(text) {
            line.clear();
            assert!(self.output.read_line(&mut line).unwrap() > 0, "it ended without {text:?}");
        }
        line.trim().to_owned()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.process), signal).unwrap();
    }

    fn end(mut self) {
        assert!(self.process.wait().unwrap().success());
    }
}

/// Runs `test` with a worker that is ended should it hang.
fn with_worker(test: impl FnOnce(&mut Worker)) {
    let mut worker = Worker::start();
    let id = Pid::from_child(&worker.process);
    let (done, wait) = std::sync::mpsc::channel::<()>();
    let watchdog = std::thread::spawn(move || {
        if wait
            .recv_timeout(LINE_WAIT_MAX)
            .is_err_and(|error| error == std::sync::mpsc::RecvTimeoutError::Timeout)
        {
            kill_process(id, Signal::KILL).unwrap();
        }
    });
    worker.expect("began");
    test(&mut worker);
    worker.end();
    drop(done);
    watchdog.join().unwrap();
}

#[test]
fn a_signal_lets_the_handler_end_and_puts_the_rest_back() {
    for signal in [Signal::TERM, Signal::INT] {
        with_worker(|worker| {
            worker.signal(signal);
            worker.expect("signalled");
            worker.input.write_all(b"go on\n").unwrap();
            let summary = worker.expect("summary");
            assert!(summary.contains("1 acked, 0 retried, 0 dead"), "{summary}");
            assert!(summary.ends_with("(signal); ready 9, leased 0"), "{summary}");
        });
    }
}

#[test]
fn a_second_signal_ends_the_run_at_once() {
    with_worker(|worker| {
        worker.signal(Signal::TERM);
        worker.expect("signalled");
        worker.signal(Signal::TERM);
        let summary = worker.expect("summary");
        assert!(summary.contains("0 acked"), "{summary}");
        assert!(summary.ends_with("ready 10, leased 0"), "{summary}");
    });
}
