//! A connection that says what it is told to, byte by byte: another program's.

#![allow(dead_code, unreachable_pub, reason = "each test program uses some of it")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use anyhow::{Context as _, Result, bail, ensure};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// A connection with one channel.
pub struct Bare {
    socket: TcpStream,
}

pub fn short(out: &mut Vec<u8>, text: &str) {
    out.push(u8::try_from(text.len()).unwrap());
    out.extend(text.bytes());
}

pub fn long(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend(u32::try_from(bytes.len()).unwrap().to_be_bytes());
    out.extend(bytes);
}

fn frame(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![kind];
    out.extend(channel.to_be_bytes());
    long(&mut out, payload);
    out.push(0xce);
    out
}

fn method(channel: u16, (class, method): (u16, u16), arguments: &[u8]) -> Vec<u8> {
    frame(1, channel, &[&class.to_be_bytes()[..], &method.to_be_bytes()[..], arguments].concat())
}

impl Bare {
    pub async fn connect() -> Result<Self> {
        let mut bare = Self { socket: TcpStream::connect(crate::support::address()).await? };
        bare.socket.write_all(b"AMQP\0\0\x09\x01").await?;
        bare.expect((10, 10)).await?;
        let mut start_ok = Vec::new();
        long(&mut start_ok, &[]);
        short(&mut start_ok, "PLAIN");
        long(&mut start_ok, b"\0guest\0guest");
        short(&mut start_ok, "en_US");
        bare.socket.write_all(&method(0, (10, 11), &start_ok)).await?;
        let tune = bare.expect((10, 30)).await?;
        bare.socket.write_all(&method(0, (10, 31), &[&tune[..6], &[0, 0]].concat())).await?;
        bare.call(0, (10, 40), &[1, b'/', 0, 0], (10, 41)).await?;
        bare.call(1, (20, 10), &[0], (20, 11)).await?;
        Ok(bare)
    }

    async fn frame(&mut self) -> Result<Vec<u8>> {
        let _kind = self.socket.read_u8().await?;
        self.socket.read_u16().await?;
        let mut payload = vec![0; self.socket.read_u32().await? as usize];
        self.socket.read_exact(&mut payload).await?;
        ensure!(self.socket.read_u8().await? == 0xce);
        Ok(payload)
    }

    async fn expect(&mut self, id: (u16, u16)) -> Result<Vec<u8>> {
        let payload = self.frame().await?;
        let (found, arguments) = payload.split_at_checked(4).context("a short frame")?;
        if found != [id.0.to_be_bytes(), id.1.to_be_bytes()].concat() {
            bail!("expected {id:?}, got {}", String::from_utf8_lossy(&payload));
        }
        Ok(arguments.to_vec())
    }

    async fn call(
        &mut self,
        channel: u16,
        id: (u16, u16),
        arguments: &[u8],
        answer: (u16, u16),
    ) -> Result<Vec<u8>> {
        self.socket.write_all(&method(channel, id, arguments)).await?;
        self.expect(answer).await
    }

    /// Durable, without arguments.
    pub async fn declare_exchange(&mut self, name: &str, kind: &str) -> Result<()> {
        let mut arguments = vec![0, 0];
        short(&mut arguments, name);
        short(&mut arguments, kind);
        arguments.extend([2, 0, 0, 0, 0]);
        self.call(1, (40, 10), &arguments, (40, 11)).await.map(drop)
    }

    pub async fn delete_exchange(&mut self, name: &str) -> Result<()> {
        let mut arguments = vec![0, 0];
        short(&mut arguments, name);
        arguments.push(0);
        self.call(1, (40, 20), &arguments, (40, 21)).await.map(drop)
    }

    /// Durable, without arguments.
    pub async fn declare_queue(&mut self, name: &str) -> Result<()> {
        let mut arguments = vec![0, 0];
        short(&mut arguments, name);
        arguments.extend([2, 0, 0, 0, 0]);
        self.call(1, (50, 10), &arguments, (50, 11)).await.map(drop)
    }

    pub async fn bind(&mut self, queue: &str, exchange: &str, key: &str) -> Result<()> {
        let mut arguments = vec![0, 0];
        short(&mut arguments, queue);
        short(&mut arguments, exchange);
        short(&mut arguments, key);
        arguments.extend([0, 0, 0, 0, 0]);
        self.call(1, (50, 20), &arguments, (50, 21)).await.map(drop)
    }

    /// Publishes with the property flags and properties as given.
    pub async fn publish(&mut self, exchange: &str, key: &str, properties: &[u8], body: &[u8]) -> Result<()> {
        let mut arguments = vec![0, 0];
        short(&mut arguments, exchange);
        short(&mut arguments, key);
        arguments.push(0);
        let mut header = vec![0, 60, 0, 0];
        header.extend((body.len() as u64).to_be_bytes());
        header.extend(properties);
        let frames = [method(1, (60, 40), &arguments), frame(2, 1, &header), frame(3, 1, body)];
        Ok(self.socket.write_all(&frames.concat()).await?)
    }

    /// Takes a message: its header and its body.
    pub async fn get(&mut self, queue: &str) -> Result<Option<(Vec<u8>, Vec<u8>)>> {
        let mut arguments = vec![0, 0];
        short(&mut arguments, queue);
        arguments.push(1);
        self.socket.write_all(&method(1, (60, 70), &arguments)).await?;
        if self.frame().await?[..4] != [0, 60, 0, 71] {
            return Ok(None);
        }
        Ok(Some((self.frame().await?, self.frame().await?)))
    }
}
