//! The suite's side of its agents: starting, asking, freezing and killing them.

use std::{process::Stdio, time::Duration};

use estafette_core::{Envelope, MessageId, QueueName, wire};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
};

use crate::{
    stage::{Stage, patience},
    violation::{Check, Violation, ensure},
};

/// What an agent does with what it takes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Then {
    Ack,
    Hold,
}

/// Another process that is connected to the store. Killed when dropped.
pub(crate) struct Agent {
    child: Child,
    input: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

/// A message an agent took.
pub(crate) struct Took {
    pub(crate) envelope: Envelope,
    pub(crate) attempt: u64,
}

impl Agent {
    pub(crate) async fn start(stage: &Stage) -> Check<Self> {
        let mut agent = Self::spawn(stage)?;
        agent.ask(&connect_command(stage)).await?;
        Ok(agent)
    }

    fn spawn(stage: &Stage) -> Check<Self> {
        let Some(program) = stage.subject.agent() else {
            return Err(Violation::Unknown("there is no program to start as another process".into()));
        };
        let mut child = Command::new(&program.program)
            .args(&program.arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(Violation::Unknown("the agent's input and output are not pipes".into()));
        };
        Ok(Self { child, input, answers: BufReader::new(output).lines() })
    }

    /// So many agents, which connect at the same time.
    pub(crate) async fn crew(stage: &Stage, count: usize) -> Check<Vec<Self>> {
        let mut agents = (0..count).map(|_| Self::spawn(stage)).collect::<Check<Vec<_>>>()?;
        for agent in &mut agents {
            agent.tell(&connect_command(stage)).await?;
        }
        for agent in &mut agents {
            agent.accept().await?;
        }
        Ok(agents)
    }

    /// Sends a command without waiting for its answer.
    pub(crate) async fn tell(&mut self, command: &Value) -> Check {
        self.input.write_all(format!("{command}\n").as_bytes()).await?;
        Ok(())
    }

    /// The next answer; none when the agent has ended.
    pub(crate) async fn answer(&mut self) -> Check<Option<Value>> {
        loop {
            let next = tokio::time::timeout(2 * patience(), self.answers.next_line()).await;
            let line = match next {
                Ok(line) => line?,
                Err(_elapsed) => return Err(Violation::timed_out(2 * patience())),
            };
            match line {
                None => return Ok(None),
                // The last line of a killed agent may be torn; it is no answer then.
                Some(line) if line.starts_with('{') => {
                    if let Ok(answer) = serde_json::from_str(&line) {
                        return Ok(Some(answer));
                    }
                }
                Some(_of_the_test_runner) => {}
            }
        }
    }

    async fn ask(&mut self, command: &Value) -> Check<Value> {
        self.tell(command).await?;
        self.accept().await
    }

    /// The next answer, which must be there and no error.
    async fn accept(&mut self) -> Check<Value> {
        let Some(answer) = self.answer().await? else {
            return Err(Violation::Unknown("the agent ended before it answered".into()));
        };
        match answer.get("error").and_then(Value::as_str) {
            Some(error) => Err(Violation::Broken(format!("in another process an operation failed: {error}"))),
            None => Ok(answer),
        }
    }

    pub(crate) async fn publish(&mut self, queue: &QueueName, messages: &[Envelope]) -> Check {
        let answer = self.ask(&publish_command(queue, messages)).await?;
        let stored = answer.get("stored").and_then(Value::as_u64).unwrap_or_default();
        ensure!(stored == messages.len() as u64, "{stored} of {} messages were stored", messages.len());
        Ok(())
    }

    pub(crate) async fn take(
        &mut self,
        queue: &QueueName,
        max: usize,
        lease: Duration,
        then: Then,
    ) -> Check<Vec<Took>> {
        let then = match then {
            Then::Ack => "ack",
            Then::Hold => "hold",
        };
        let lease = u64::try_from(lease.as_millis()).unwrap_or(u64::MAX);
        let command = json!({
            "do": "take", "queue": queue.as_str(), "max": max, "wait": 500, "lease": lease, "then": then,
        });
        let answer = self.ask(&command).await?;
        let took = answer.get("took").and_then(Value::as_array).cloned().unwrap_or_default();
        took.iter().map(Took::read).collect()
    }

    /// Takes one message and holds it.
    pub(crate) async fn hold_one(&mut self, queue: &QueueName, lease: Duration) -> Check<Took> {
        let deadline = tokio::time::Instant::now() + patience();
        loop {
            if let Some(took) = self.take(queue, 1, lease, Then::Hold).await?.pop() {
                return Ok(took);
            }
            ensure!(tokio::time::Instant::now() < deadline, "no message came in another process");
        }
    }

    /// Acknowledges what is held, and returns how that went, in words.
    pub(crate) async fn settle(&mut self) -> Check<Vec<String>> {
        let answer = self.ask(&json!({ "do": "settle" })).await?;
        let words = answer.get("settled").and_then(Value::as_array).cloned().unwrap_or_default();
        Ok(words.iter().filter_map(Value::as_str).map(str::to_owned).collect())
    }

    /// Declares a temporary queue and opens a receiver on it.
    pub(crate) async fn occupy(&mut self, queue: &QueueName) -> Check {
        self.ask(&json!({ "do": "occupy", "queue": queue.as_str() })).await?;
        Ok(())
    }

    /// Kills it (`kill -9`) and waits until it is gone.
    pub(crate) async fn kill(&mut self) -> Check {
        self.child.kill().await?;
        Ok(())
    }

    /// Stops it in its tracks (`SIGSTOP`).
    pub(crate) fn freeze(&self) -> Check {
        self.signal(Signal::Stop)
    }

    /// Lets it go on (`SIGCONT`).
    pub(crate) fn thaw(&self) -> Check {
        self.signal(Signal::Continue)
    }

    #[cfg(unix)]
    fn signal(&self, signal: Signal) -> Check {
        use rustix::process::{Pid, Signal as Unix, kill_process};
        let id = self.child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        let Some(id) = id else { return Err(Violation::Unknown("the agent has ended".into())) };
        let signal = match signal {
            Signal::Stop => Unix::STOP,
            Signal::Continue => Unix::CONT,
        };
        kill_process(id, signal).map_err(|error| Violation::from(std::io::Error::from(error)))
    }

    #[cfg(not(unix))]
    fn signal(&self, signal: Signal) -> Check {
        Err(Violation::Unknown(format!("this system has no signal {signal:?} for processes")))
    }
}

#[derive(Clone, Copy, Debug)]
enum Signal {
    Stop,
    Continue,
}

impl Took {
    fn read(took: &Value) -> Check<Self> {
        let message = took.get("message").and_then(Value::as_str).unwrap_or_default();
        let envelope = wire::decode(message.as_bytes())?;
        Ok(Self { envelope, attempt: took.get("attempt").and_then(Value::as_u64).unwrap_or_default() })
    }
}

fn connect_command(stage: &Stage) -> Value {
    json!({ "do": "connect", "url": stage.subject.url() })
}

pub(crate) fn publish_command(queue: &QueueName, messages: &[Envelope]) -> Value {
    let texts: Vec<_> =
        messages.iter().map(|message| String::from_utf8_lossy(&wire::encode(message)).into_owned()).collect();
    json!({ "do": "publish", "queue": queue.as_str(), "messages": texts })
}

pub(crate) fn ids_taken(took: &[Took]) -> Vec<MessageId> {
    took.iter().map(|took| took.envelope.id.clone()).collect()
}
