//! The servers' text protocol: what is in each function, and removing functions.

use std::collections::BTreeMap;

use estafette_core::{Error, ErrorKind, Result};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
};

use crate::{
    config::{Endpoint, GearmanConfig},
    error,
};

/// More functions than that are not listed.
const LINES_MAX: usize = 1_000_000;

/// What is in a function.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Count {
    /// Jobs that wait, also for their time.
    pub(crate) waiting: u64,
    /// Jobs that a worker has.
    pub(crate) running: u64,
    /// Connected workers.
    pub(crate) workers: u64,
}

pub(crate) type Counts = BTreeMap<String, Count>;

/// What is in each function of one server.
pub(crate) async fn counts(endpoint: &Endpoint, config: &GearmanConfig) -> Result<Counts> {
    let asking = async {
        let mut lines = ask(endpoint, "status\n").await?;
        let mut counts = Counts::new();
        for _ in 0..LINES_MAX {
            let line = read_line(endpoint, &mut lines).await?;
            if line == "." {
                return Ok(counts);
            }
            let mut words = line.rsplitn(4, '\t');
            let mut number = || words.next().and_then(|word| word.parse::<u64>().ok());
            let (Some(workers), Some(running), Some(total)) = (number(), number(), number()) else {
                return Err(error::refused(&line));
            };
            let function = words.next().unwrap_or_default().to_owned();
            counts.insert(function, Count { waiting: total.saturating_sub(running), running, workers });
        }
        Err(error::refused("the list of functions has no end"))
    };
    limited(endpoint, config, asking).await
}

/// Removes a function with everything that waits in it.
///
/// # Errors
///
/// [`ErrorKind::Conflict`] when workers are connected.
pub(crate) async fn drop_function(endpoint: &Endpoint, config: &GearmanConfig, function: &str) -> Result<()> {
    let asking = async {
        let mut lines = ask(endpoint, &format!("drop function {function}\n")).await?;
        let line = read_line(endpoint, &mut lines).await?;
        if line.starts_with("OK") || line.contains("not found") {
            Ok(())
        } else if line.contains("connected workers") {
            Err(Error::new(ErrorKind::Conflict, "workers are connected to it"))
        } else {
            Err(error::refused(&line))
        }
    };
    limited(endpoint, config, asking).await
}

async fn limited<T>(
    endpoint: &Endpoint,
    config: &GearmanConfig,
    asking: impl Future<Output = Result<T>>,
) -> Result<T> {
    let limit = config.connect_timeout;
    tokio::time::timeout(limit, asking).await.unwrap_or_else(|_elapsed| Err(error::silent(endpoint, limit)))
}

async fn ask(endpoint: &Endpoint, command: &str) -> Result<BufReader<TcpStream>> {
    let broken = |source: std::io::Error| error::broken(endpoint, &source);
    let mut stream = TcpStream::connect((endpoint.host.as_str(), endpoint.port)).await.map_err(broken)?;
    stream.write_all(command.as_bytes()).await.map_err(broken)?;
    Ok(BufReader::new(stream))
}

async fn read_line(endpoint: &Endpoint, lines: &mut BufReader<TcpStream>) -> Result<String> {
    let mut line = Vec::new();
    let read = lines.read_until(b'\n', &mut line).await;
    if read.map_err(|source| error::broken(endpoint, &source))? == 0 {
        return Err(error::hung_up(endpoint));
    }
    Ok(String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']).to_owned())
}
