//! Two processes and a Unix socket between them, blocking: the least a message to another process can cost.

use std::{
    io::{Read as _, Write as _},
    os::unix::net::{UnixListener, UnixStream},
    path::Path,
    process::{Child, Command},
    time::{Duration, Instant},
};

use super::BODY_BYTES;
use crate::cases::workers::{Placement, Times};

/// The argument that makes this program the other process.
pub const AGENT: &str = "agent-floor";

/// The other process: sends back what it gets until the connection ends; without a placement, only reads it.
///
/// # Errors
///
/// When it cannot connect.
pub fn echo(arguments: &[String]) -> anyhow::Result<()> {
    let (socket, placement) = match arguments {
        [socket] => return sink(Path::new(socket)),
        [socket, placement] => (socket, placement),
        _ => anyhow::bail!("a socket, and perhaps a placement, please"),
    };
    placement.parse::<Placement>()?.apply(1)?;
    let mut socket = UnixStream::connect(socket)?;
    let mut body = [0; BODY_BYTES];
    while socket.read_exact(&mut body).is_ok() {
        socket.write_all(&body)?;
    }
    Ok(())
}

/// Reads until the connection ends, then answers with one byte.
fn sink(socket: &Path) -> anyhow::Result<()> {
    let mut socket = UnixStream::connect(socket)?;
    let mut space = vec![0; 128 << 10];
    while socket.read(&mut space)? > 0 {}
    socket.write_all(&[0])?;
    Ok(())
}

/// Asks and waits, `count` times.
///
/// # Errors
///
/// When the other process cannot be started.
pub fn round_trips(directory: &Path, count: u32, placement: Placement) -> anyhow::Result<Times> {
    let path = directory.join("floor");
    let listener = UnixListener::bind(&path)?;
    let this = std::env::current_exe()?;
    let mut child = Command::new(this).arg(AGENT).arg(&path).arg(placement.to_string()).spawn()?;
    let outcome = accept(&listener, &mut child).and_then(|mut socket| {
        placement.apply(0)?;
        let mut body = [0; BODY_BYTES];
        let mut times = Vec::new();
        for _ in 0..count {
            let start = Instant::now();
            socket.write_all(&body)?;
            socket.read_exact(&mut body)?;
            times.push(start.elapsed());
        }
        Times::of(times)
    });
    Placement::Free.apply(0)?;
    child.wait()?;
    outcome
}

/// Sends without waiting, a write for each message; how long it took until all was read.
///
/// # Errors
///
/// When the other process cannot be started.
pub fn one_way(directory: &Path, count: u32) -> anyhow::Result<Duration> {
    let path = directory.join("floor");
    let listener = UnixListener::bind(&path)?;
    let mut child = Command::new(std::env::current_exe()?).arg(AGENT).arg(&path).spawn()?;
    let mut socket = accept(&listener, &mut child)?;
    let start = Instant::now();
    for _ in 0..count {
        socket.write_all(&[0; BODY_BYTES])?;
    }
    socket.shutdown(std::net::Shutdown::Write)?;
    socket.read_exact(&mut [0])?;
    let elapsed = start.elapsed();
    child.wait()?;
    Ok(elapsed)
}

/// Waits for the other process; not for ever, should it have failed to start.
fn accept(listener: &UnixListener, child: &mut Child) -> anyhow::Result<UnixStream> {
    listener.set_nonblocking(true)?;
    for _ in 0..5000 {
        match listener.accept() {
            Ok((socket, _)) => {
                socket.set_nonblocking(false)?;
                return Ok(socket);
            }
            Err(_) if child.try_wait()?.is_none() => std::thread::sleep(Duration::from_millis(1)),
            Err(_) => anyhow::bail!("the other process ended"),
        }
    }
    anyhow::bail!("the other process did not connect")
}
