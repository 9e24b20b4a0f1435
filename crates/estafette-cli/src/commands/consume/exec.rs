//! The handler that runs a command: any language handles messages.

use std::{
    ffi::OsString,
    io,
    process::{ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};

use estafette::{BoxError, Bytes, Context, Verdict};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    process::{Child, ChildStderr, ChildStdin, Command},
};

/// `EX_TEMPFAIL` of sysexits.h: try again later.
const RETRY: i32 = 75;

/// `EX_DATAERR` of sysexits.h: the message itself is wrong.
const REJECT: i32 = 65;

/// How much of the end of a command's standard error is kept.
const TAIL_BYTES_MAX: usize = 2048;

/// How long a command that has ended may keep its standard error open, by a process it left behind.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// Runs a command through the shell for each message.
pub(super) struct Exec {
    command: OsString,
    url: String,
}

impl Exec {
    pub(super) fn new(command: OsString, url: &str) -> Self {
        Self { command, url: url.to_owned() }
    }

    /// Runs the command for one message. Its exit status is the verdict.
    pub(super) async fn handle(self: Arc<Self>, context: Context) -> Result<Verdict, BoxError> {
        let (status, tail) = self.run(&context).await?;
        let said = String::from_utf8_lossy(&tail);
        let mut error = describe(status);
        if !said.trim().is_empty() {
            error = format!("{error}: {}", said.trim());
        }
        match status.code() {
            Some(0) => Ok(Verdict::Ack),
            Some(RETRY) => Ok(Verdict::retry(error)),
            Some(REJECT) => Ok(Verdict::reject(error)),
            _ => Err(error.into()),
        }
    }

    /// Runs the command to its end. Dropped half way, it kills the command and all it started.
    async fn run(&self, context: &Context) -> io::Result<(ExitStatus, Vec<u8>)> {
        let mut child = self.command(context).spawn()?;
        let mut group = Group::of(&child);
        let mut tail = Vec::new();
        let status = {
            let body = context.envelope().body.clone();
            let input = feed(child.stdin.take(), body);
            let errors = listen(child.stderr.take(), &mut tail);
            let mut talk = std::pin::pin!(async { tokio::join!(input, errors) });
            tokio::select! {
                status = child.wait() => {
                    // What it said last may still be in the pipe; a process it left behind may keep that open for ever.
                    if tokio::time::timeout(LAST_WORDS, &mut talk).await.is_err() {
                        tracing::debug!("a process the command left behind keeps its standard error open");
                    }
                    status
                }
                _ = &mut talk => child.wait().await,
            }
        }?;
        group.has_ended();
        Ok((status, tail))
    }

    fn command(&self, context: &Context) -> Command {
        let envelope = context.envelope();
        let mut command = Command::new("sh");
        command.arg("-c").arg(&self.command);
        command.stdin(Stdio::piped()).stderr(Stdio::piped()).process_group(0).kill_on_drop(true);
        command.env("ESTAFETTE_URL", &self.url);
        command.env("ESTAFETTE_ID", envelope.id.to_string());
        command.env("ESTAFETTE_TOPIC", envelope.topic.as_str());
        command.env("ESTAFETTE_QUEUE", context.queue().as_str());
        command.env("ESTAFETTE_ATTEMPT", context.attempt().to_string());
        let optional = [
            ("ESTAFETTE_CONTENT_TYPE", &envelope.content_type),
            ("ESTAFETTE_SUBJECT", &envelope.subject),
            ("ESTAFETTE_KEY", &envelope.partition_key),
            ("ESTAFETTE_CORRELATION_ID", &envelope.correlation_id),
            ("TRACEPARENT", &envelope.traceparent),
        ];
        for (name, value) in optional {
            match value {
                Some(value) => command.env(name, without_nul(value)),
                None => command.env_remove(name),
            };
        }
        for (name, value) in envelope.headers.iter() {
            command.env(header_variable(name), without_nul(value));
        }
        command
    }
}

/// The variable for a header: upper case, and `_` for everything a shell would not take in a name.
fn header_variable(name: &str) -> String {
    let plain = |character: char| match character.to_ascii_uppercase() {
        character @ ('A'..='Z' | '0'..='9') => character,
        _ => '_',
    };
    format!("ESTAFETTE_HEADER_{}", name.chars().map(plain).collect::<String>())
}

/// No variable can hold the character NUL.
fn without_nul(value: &str) -> String {
    value.replace('\0', "")
}

/// Writes the body to the command. One that does not want to read all of it is within its rights.
async fn feed(stdin: Option<ChildStdin>, body: Bytes) {
    if let Some(mut stdin) = stdin
        && let Err(error) = stdin.write_all(&body).await
    {
        tracing::debug!(%error, "the command did not read the whole body");
    }
}

/// Passes on what the command says to standard error, and keeps the end of it.
async fn listen(stderr: Option<ChildStderr>, tail: &mut Vec<u8>) {
    let Some(mut stderr) = stderr else { return };
    let mut chunk = [0; 4096];
    while let Ok(count @ 1..) = stderr.read(&mut chunk).await {
        let said = chunk.get(..count).unwrap_or_default();
        if let Err(error) = tokio::io::stderr().write_all(said).await {
            tracing::trace!(%error, "standard error is closed");
        }
        tail.extend_from_slice(said);
        let surplus = tail.len().saturating_sub(TAIL_BYTES_MAX);
        tail.drain(..surplus);
    }
}

fn describe(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt as _;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => status.to_string(),
    }
}

/// A command and every process it started, killed when this is dropped before the command has ended.
struct Group(Option<Pid>);

impl Group {
    fn of(child: &Child) -> Self {
        let id = child.id().and_then(|id| i32::try_from(id).ok());
        Self(id.and_then(Pid::from_raw))
    }

    /// Leaves alone what the command left running: that is its own decision.
    fn has_ended(&mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0
            && let Err(error) = kill_process_group(group, Signal::KILL)
        {
            tracing::debug!(%error, "the command had ended already");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_become_names_a_shell_takes() {
        assert_eq!(header_variable("tenant"), "ESTAFETTE_HEADER_TENANT");
        assert_eq!(header_variable("X-Request-Id"), "ESTAFETTE_HEADER_X_REQUEST_ID");
        assert_eq!(header_variable("größe"), "ESTAFETTE_HEADER_GR__E");
    }
}
