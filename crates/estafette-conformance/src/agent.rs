//! The agent: a program that does what the suite asks for, from a process of its own.
//!
//! One JSON object a line on standard input, one on standard output for each. Other lines on standard output are
//! not the agent's and begin with another character than `{`.
//!
//! | `do` | with | answer |
//! |---|---|---|
//! | `connect` | `url` | `{}` |
//! | `publish` | `queue`, `messages` (structured `CloudEvents` texts) | `{"stored": count}` |
//! | `take` | `queue`, `max`, `wait` and `lease` in milliseconds, `then`: `ack` or `hold` | `{"took": [{"message", "attempt"}]}` |
//! | `settle` | | `{"settled": ["ok" or the error's kind]}` for what is held |
//! | `occupy` | `queue` | declares a temporary queue and opens a receiver; `{}` |
//!
//! What fails is answered with `{"error": sentence}`. The agent ends with its input, or after two minutes.

use std::{sync::Arc, time::Duration};

use estafette_core::{
    Delivery, Error, ErrorKind, Lifetime, Outgoing, QueueName, QueueSpec, ReceiveOptions, Receiver, Result,
    Transport, TransportUrl, wire,
};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

use crate::Subject;

/// The longest an agent lives: whoever started it may be gone.
const LIFE_MAX: Duration = Duration::from_secs(120);

/// Serves the suite on standard input and output until the input ends. A program given as
/// [`AgentProgram`](crate::AgentProgram) calls this, with the function that connects to the transport under test.
///
/// # Errors
///
/// Those of reading and writing; what fails on the transport is answered to the suite.
pub async fn serve_agent<C, F>(connect: C) -> std::io::Result<()>
where
    C: Fn(TransportUrl) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Result<Arc<dyn Transport>>> + Send + 'static,
{
    let serving = serve(move |url| Subject::new(connect.clone(), url));
    match tokio::time::timeout(LIFE_MAX, serving).await {
        Ok(ended) => ended,
        Err(_elapsed) => Ok(()),
    }
}

async fn serve(subject: impl Fn(&str) -> Subject) -> std::io::Result<()> {
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    let mut output = tokio::io::stdout();
    // The test runner may have begun a line of its own.
    output.write_all(b"\n").await?;
    let mut agent = Agent::default();
    while let Some(line) = lines.next_line().await? {
        let answer = match agent.answer(&line, &subject).await {
            Ok(answer) => answer,
            Err(error) => json!({ "error": error.report() }),
        };
        output.write_all(format!("{answer}\n").as_bytes()).await?;
        output.flush().await?;
    }
    Ok(())
}

#[derive(Default)]
struct Agent {
    transport: Option<Arc<dyn Transport>>,
    receiver: Option<Box<dyn Receiver>>,
    held: Vec<Delivery>,
}

impl Agent {
    async fn answer(&mut self, line: &str, subject: impl Fn(&str) -> Subject) -> Result<Value> {
        let command: Value =
            serde_json::from_str(line).map_err(|source| Error::new(ErrorKind::InvalidInput, source))?;
        match text(&command, "do")? {
            "connect" => {
                self.transport = Some(subject(text(&command, "url")?).connect().await?);
                Ok(json!({}))
            }
            "publish" => self.publish(&command).await,
            "take" => self.take(&command).await,
            "settle" => {
                let mut settled = Vec::new();
                for delivery in self.held.drain(..) {
                    settled.push(match delivery.ack().await {
                        Ok(()) => "ok",
                        Err(error) => error.kind().as_str(),
                    });
                }
                Ok(json!({ "settled": settled }))
            }
            "occupy" => {
                let spec =
                    QueueSpec { lifetime: Lifetime::Temporary, ..QueueSpec::durable(queue(&command)?) };
                self.transport()?.declare(&spec).await?;
                self.receiver =
                    Some(self.transport()?.receiver(&spec.name, ReceiveOptions::default()).await?);
                Ok(json!({}))
            }
            other => Err(Error::new(ErrorKind::InvalidInput, format!("there is no command {other}"))),
        }
    }

    fn transport(&self) -> Result<&Arc<dyn Transport>> {
        self.transport.as_ref().ok_or_else(|| Error::new(ErrorKind::InvalidInput, "not connected yet"))
    }

    async fn publish(&self, command: &Value) -> Result<Value> {
        let queue = queue(command)?;
        let mut batch = Vec::new();
        for message in command.get("messages").and_then(Value::as_array).into_iter().flatten() {
            let envelope = wire::decode(message.as_str().unwrap_or_default().as_bytes())?;
            batch.push(Outgoing::send(queue.clone(), envelope));
        }
        let results = self.transport()?.publish(&batch).await;
        let stored = results.into_iter().collect::<Result<Vec<_>>>()?.len();
        Ok(json!({ "stored": stored }))
    }

    async fn take(&mut self, command: &Value) -> Result<Value> {
        let mut receiver = match self.receiver.take() {
            Some(receiver) => receiver,
            None => {
                let lease = millis(command, "lease");
                let options = ReceiveOptions { lease, ..ReceiveOptions::default() };
                self.transport()?.receiver(&queue(command)?, options).await?
            }
        };
        let max = command.get("max").and_then(Value::as_u64).unwrap_or(1);
        let deliveries =
            receiver.receive(usize::try_from(max).unwrap_or(usize::MAX), millis(command, "wait")).await?;
        self.receiver = Some(receiver);
        let mut took = Vec::new();
        for delivery in deliveries {
            let message = String::from_utf8_lossy(&wire::encode(delivery.envelope())).into_owned();
            took.push(json!({ "message": message, "attempt": delivery.attempt() }));
            match text(command, "then")? {
                "hold" => self.held.push(delivery),
                _ => delivery.ack().await?,
            }
        }
        Ok(json!({ "took": took }))
    }
}

fn text<'command>(command: &'command Value, name: &str) -> Result<&'command str> {
    let missing = || Error::new(ErrorKind::InvalidInput, format!("the command has no text {name}"));
    command.get(name).and_then(Value::as_str).ok_or_else(missing)
}

fn queue(command: &Value) -> Result<QueueName> {
    text(command, "queue")?.parse()
}

fn millis(command: &Value, name: &str) -> Duration {
    Duration::from_millis(command.get(name).and_then(Value::as_u64).unwrap_or_default())
}
