//! What the tests with several processes and with faults share.

use std::{
    collections::HashSet,
    io::{BufRead as _, BufReader, Lines, Write as _},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::Duration,
};

use estafette_core::{
    Delivery, Envelope, Outgoing, QueueName, QueueSpec, ReceiveOptions, Receiver, Transport,
};
use estafette_file::{FileConfig, FileDurability, FileTransport};

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
pub(crate) const LEASE_LONG: Duration = Duration::from_secs(600);

/// A transport that does not flush, for tests that are not about power cuts.
pub(crate) fn quick(directory: &Path) -> FileTransport {
    FileTransport::open(FileConfig::new(directory).durability(FileDurability::Os)).unwrap()
}

pub(crate) fn queue_name() -> QueueName {
    "work".parse().unwrap()
}

/// A numbered message for the queue.
pub(crate) fn numbered(number: usize) -> Outgoing {
    let envelope = Envelope::new("work.made".parse().unwrap(), format!("{{\"number\":{number}}}").into());
    Outgoing::send(queue_name(), envelope)
}

pub(crate) fn number_of(delivery: &Delivery) -> usize {
    let body: serde_json::Value = serde_json::from_slice(&delivery.envelope().body).unwrap();
    body.get("number").and_then(serde_json::Value::as_u64).and_then(|number| number.try_into().ok()).unwrap()
}

pub(crate) async fn declare(transport: &FileTransport) {
    transport.declare(&QueueSpec::durable(queue_name())).await.unwrap();
}

pub(crate) async fn send(transport: &FileTransport, numbers: std::ops::Range<usize>) {
    let batch: Vec<_> = numbers.map(numbered).collect();
    for result in transport.publish(&batch).await {
        result.unwrap();
    }
}

pub(crate) async fn receiver(transport: &FileTransport, lease: Duration) -> Box<dyn Receiver> {
    let options = ReceiveOptions { lease, ..ReceiveOptions::default() };
    transport.receiver(&queue_name(), options).await.unwrap()
}

pub(crate) async fn take_one(receiver: &mut Box<dyn Receiver>) -> Delivery {
    let mut taken = receiver.receive(1, PATIENCE).await.unwrap();
    taken.pop().expect("a message within the time")
}

/// Acknowledges everything there is and returns the numbers.
pub(crate) async fn drain(transport: &FileTransport) -> Vec<usize> {
    let mut receiver = receiver(transport, LEASE_LONG).await;
    let mut numbers = Vec::new();
    loop {
        let taken = receiver.receive(100, Duration::from_millis(300)).await.unwrap();
        if taken.is_empty() {
            return numbers;
        }
        for delivery in taken {
            numbers.push(number_of(&delivery));
            delivery.ack().await.unwrap();
        }
    }
}

/// Fails when a number is there twice.
pub(crate) fn distinct(numbers: impl IntoIterator<Item = usize>) -> HashSet<usize> {
    let mut seen = HashSet::new();
    for number in numbers {
        assert!(seen.insert(number), "number {number} came twice");
    }
    seen
}

/// This test program, started again to run one ignored test that plays a part; killed when dropped.
pub(crate) struct Process {
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

/// What a part says to the test, as a line; everything else on its output is the test runner's.
const SAYS: &str = "SAYS ";

/// The directory given to a part.
pub(crate) fn part_directory() -> std::path::PathBuf {
    std::env::var_os("ESTAFETTE_TEST_DIRECTORY").expect("started by another test").into()
}

/// Says something to the test that started this part.
pub(crate) fn say(text: impl std::fmt::Display) {
    // One write, and flushed: the part may be killed the next moment.
    let mut output = std::io::stdout().lock();
    output.write_all(format!("\n{SAYS}{text}\n").as_bytes()).unwrap();
    output.flush().unwrap();
}

/// Waits until the test says something, which it may never do.
pub(crate) fn wait_for_word() {
    std::io::stdin().read_line(&mut String::new()).unwrap();
}

impl Process {
    pub(crate) fn start(part: &str, directory: &Path) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", part, "--nocapture", "--test-threads=1"])
            .env("ESTAFETTE_TEST_DIRECTORY", directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { input: child.stdin.take().unwrap(), child, output }
    }

    /// The next thing the part says; none when it has ended.
    pub(crate) fn hear(&mut self) -> Option<String> {
        self.output.by_ref().map_while(Result::ok).find_map(|line| Some(line.strip_prefix(SAYS)?.to_owned()))
    }

    pub(crate) fn tell(&mut self) {
        self.input.write_all(b"go\n").unwrap();
    }

    /// Kills it, as the kernel does when memory is short, and returns what it had said until then.
    pub(crate) fn kill(mut self) -> Vec<String> {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        std::iter::from_fn(|| self.hear()).collect()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _already_ended = self.child.kill();
        let _status = self.child.wait();
    }
}
