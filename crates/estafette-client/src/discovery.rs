//! Which nodes there are: asked over HTTP, again and again.

use std::time::Duration;

use estafette_core::{Error, ErrorKind, Result};
use serde::{Deserialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::watch,
};

use crate::builder::Settings;

/// Bytes of an answer.
const ANSWER_BYTES_MAX: u64 = 4 << 20;

/// A node of the gateway.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Deserialize)]
pub struct Node {
    /// Its name.
    pub id: String,
    /// `host:port` of its management API.
    #[serde(rename = "api_server")]
    pub address: String,
}

#[derive(Deserialize)]
struct Version {
    #[serde(default)]
    apis: Vec<String>,
}

#[derive(Deserialize)]
struct Nodes {
    nodes: Vec<Node>,
}

/// The nodes there are now.
pub(crate) async fn nodes(settings: &Settings) -> Result<Vec<Node>> {
    let nodes: Nodes = get(settings, "/v1/nodes").await?;
    Ok(nodes.nodes)
}

/// Refuses a gateway that does not know our version of the API.
pub(crate) async fn check_version(settings: &Settings) -> Result<()> {
    let version: Version = get(settings, "/version").await?;
    if version.apis.iter().any(|api| api == "v1") {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Unsupported, "the gateway does not know version 1 of the API"))
}

/// Keeps `list` as it is at the gateway. A gateway that does not answer changes nothing.
pub(crate) async fn follow(settings: Settings, list: watch::Sender<Vec<Node>>) {
    loop {
        tokio::time::sleep(jittered(settings.nodes_every)).await;
        match nodes(&settings).await {
            Ok(nodes) => {
                list.send_if_modified(|known| {
                    let is_new = *known != nodes;
                    *known = nodes;
                    is_new
                });
            }
            Err(error) => tracing::warn!(error = error.report(), "the gateway's nodes are not known"),
        }
        if list.is_closed() {
            return;
        }
    }
}

/// Up to a tenth longer, so that backends started together do not ask together.
fn jittered(interval: Duration) -> Duration {
    interval.mul_f64(1.0 + fastrand::f64() / 10.0)
}

/// As HTTP/1.0, so that the answer ends with the connection and comes in one piece.
async fn get<T: DeserializeOwned>(settings: &Settings, path: &str) -> Result<T> {
    let authorization = settings.authorization.as_ref();
    let authorization = authorization.map(|value| format!("Authorization: {value}\r\n")).unwrap_or_default();
    let host = &settings.host;
    let request =
        format!("GET {path} HTTP/1.0\r\nHost: {host}\r\nAccept: application/json\r\n{authorization}\r\n");
    let exchange = async {
        let mut stream = TcpStream::connect(host).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    let answer = tokio::time::timeout(settings.connect_time_max, exchange)
        .await
        .map_err(|elapsed| Error::new(ErrorKind::Unavailable, elapsed))?
        .map_err(|error| Error::new(ErrorKind::Unavailable, error))?;
    let body = body(&answer)?;
    serde_json::from_slice(body).map_err(|error| Error::new(ErrorKind::Undecodable, error))
}

/// The body of an answer whose status is 200.
fn body(answer: &[u8]) -> Result<&[u8]> {
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n");
    let parts = end.and_then(|end| Some((answer.get(..end)?, answer.get(end + 4..)?)));
    let (head, body) = parts.ok_or_else(|| Error::new(ErrorKind::Undecodable, "not an HTTP answer"))?;
    let status = head.get(9..12).unwrap_or_default();
    match status {
        b"200" => Ok(body),
        b"401" | b"403" => Err(Error::new(ErrorKind::Denied, "the gateway refuses these credentials")),
        _ => {
            let line = String::from_utf8_lossy(head).lines().next().unwrap_or_default().to_owned();
            Err(Error::new(ErrorKind::Undecodable, line))
        }
    }
}
