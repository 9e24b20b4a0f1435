//! What the tests share.

use std::{
    collections::HashSet,
    io::{BufRead as _, BufReader, Lines, Write as _},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::Duration,
};

use estafette_core::{
    Delivery, Durability, Envelope, Outcome, Outgoing, QueueName, QueueSpec, ReceiveOptions, Receiver,
    Result, Transport, settle_all,
};
use estafette_sql::{SqlConfig, SqlTransport};

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// How long nothing must come before a queue counts as empty.
pub(crate) const SILENCE: Duration = Duration::from_millis(300);

/// A database in `directory` that does not flush, for tests that are not about power cuts.
pub(crate) fn config(directory: &Path) -> SqlConfig {
    SqlConfig { durability: Durability::System, ..SqlConfig::sqlite(directory.join("mail.db")) }
}

pub(crate) async fn open(directory: &Path) -> SqlTransport {
    SqlTransport::connect(config(directory)).await.unwrap()
}

/// The same with the queue declared.
pub(crate) async fn open_with_queue(directory: &Path) -> SqlTransport {
    let transport = open(directory).await;
    transport.declare(&QueueSpec::durable(queue_name())).await.unwrap();
    transport
}

pub(crate) fn queue_name() -> QueueName {
    "work".parse().unwrap()
}

/// A message for the queue.
pub(crate) fn message(body: Vec<u8>) -> Outgoing {
    Outgoing::send(queue_name(), Envelope::new("work.made".parse().unwrap(), body.into()))
}

pub(crate) fn numbered(number: usize) -> Outgoing {
    message(number.to_string().into_bytes())
}

pub(crate) fn number_of(delivery: &Delivery) -> usize {
    std::str::from_utf8(&delivery.envelope().body).unwrap().parse().unwrap()
}

/// Sends a batch; all of it must be stored.
pub(crate) async fn send(transport: &SqlTransport, numbers: std::ops::Range<usize>) {
    try_send(transport, numbers).await.unwrap();
}

pub(crate) async fn try_send(transport: &SqlTransport, numbers: std::ops::Range<usize>) -> Result<()> {
    let batch: Vec<_> = numbers.map(numbered).collect();
    transport.publish(&batch).await.into_iter().try_for_each(|result| result.map(drop))
}

pub(crate) async fn receiver(transport: &SqlTransport, lease: Duration) -> Box<dyn Receiver> {
    let options = ReceiveOptions { lease, ..ReceiveOptions::default() };
    transport.receiver(&queue_name(), options).await.unwrap()
}

/// Acknowledges everything there is and returns the numbers.
pub(crate) async fn drain(transport: &SqlTransport) -> Vec<usize> {
    let mut receiver = receiver(transport, PATIENCE).await;
    let mut numbers = Vec::new();
    loop {
        let taken = receiver.receive(100, SILENCE).await.unwrap();
        if taken.is_empty() {
            return numbers;
        }
        numbers.extend(taken.iter().map(number_of));
        ack_all(taken).await.unwrap();
    }
}

pub(crate) async fn ack_all(taken: Vec<Delivery>) -> Result<()> {
    let acks = taken.into_iter().map(|delivery| (delivery, Outcome::Ack)).collect();
    settle_all(acks).await.into_iter().collect()
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
        self.output
            .by_ref()
            .map_while(std::io::Result::ok)
            .find_map(|line| Some(line.strip_prefix(SAYS)?.to_owned()))
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

    /// Waits for its end, which must be a success, and returns what it had said until then.
    pub(crate) fn finish(mut self) -> Vec<String> {
        let said = std::iter::from_fn(|| self.hear()).collect();
        assert!(self.child.wait().unwrap().success(), "a part failed: {said:?}");
        said
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _already_ended = self.child.kill();
        let _status = self.child.wait();
    }
}
