//! The opening of a connection: greeting, credentials, limits, virtual host.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64},
    },
    time::Duration,
};

use bytes::Bytes;
use estafette_core::{Error, ErrorKind, Result};
use tokio::{io::AsyncWriteExt, sync::Notify, time::Instant};

use super::{Link, Out, Shared, dispatch::Channels, stream, stream::Stream, tasks, tasks::FrameReader};
use crate::{
    config::{AmqpConfig, Endpoint},
    error,
    protocol::{Kind, Method, Reader, method::Closed, request},
};

/// Channels on one connection at most, whatever the broker allows.
const CHANNELS_MAX: u16 = 2047;

/// The largest frame, whatever the broker allows.
const FRAME_MAX: u32 = 131_072;

/// What the broker and we agreed on.
struct Agreed {
    channel_max: u16,
    frame_max: u32,
    heartbeat: u16,
}

/// Connects to `endpoint` for the purpose `role`, which becomes part of the connection's name.
pub(crate) async fn open(config: &AmqpConfig, endpoint: &Endpoint, role: &str) -> Result<Arc<Link>> {
    let opening = open_without_limit(config, endpoint, role);
    match tokio::time::timeout(config.connect_timeout, opening).await {
        Ok(opened) => opened,
        Err(_) => {
            let sentence = format!("{endpoint} did not answer within {:?}", config.connect_timeout);
            Err(Error::new(ErrorKind::Unavailable, sentence))
        }
    }
}

async fn open_without_limit(config: &AmqpConfig, endpoint: &Endpoint, role: &str) -> Result<Arc<Link>> {
    let Stream { read, mut write, direct } = stream::connect(endpoint, config.tls.as_ref()).await?;
    let mut reader = FrameReader::new(read, usize::try_from(FRAME_MAX).unwrap_or(usize::MAX));
    write.write_all(request::GREETING).await.map_err(error::broken)?;
    write.flush().await.map_err(error::broken)?;
    expect(&mut reader, Method::ConnectionStart, config).await?;

    let mut out = Vec::new();
    let name = format!("{} ({role})", config.connection_name);
    let credentials = format!("\0{}\0{}", config.user, config.password.expose());
    request::connection_start_ok(&mut out, &name, "PLAIN", credentials.as_bytes());
    write.write_all(&out).await.map_err(error::broken)?;
    write.flush().await.map_err(error::broken)?;
    let agreed = agree(&expect(&mut reader, Method::ConnectionTune, config).await?, config.heartbeat)?;

    out.clear();
    request::connection_tune_ok(&mut out, agreed.channel_max, agreed.frame_max, agreed.heartbeat);
    request::connection_open(&mut out, &config.vhost);
    write.write_all(&out).await.map_err(error::broken)?;
    write.flush().await.map_err(error::broken)?;
    expect(&mut reader, Method::ConnectionOpenOk, config).await?;

    let shared = Arc::new(Shared {
        out: Mutex::new(Out { socket: direct, ..Out::default() }),
        wake_writer: Notify::new(),
        wake_writer_later: Notify::new(),
        written: Notify::new(),
        channels: Mutex::new(Channels::new(agreed.channel_max)),
        ended: Mutex::default(),
        has_ended: AtomicBool::new(false),
        ended_notify: Notify::new(),
        blocked: AtomicBool::new(false),
        blocked_changed: Notify::new(),
        started: Instant::now(),
        last_read: AtomicU64::new(0),
        frame_max: usize::try_from(agreed.frame_max).unwrap_or(usize::MAX),
        heartbeat: Duration::from_secs(u64::from(agreed.heartbeat)),
        call_timeout: config.patience,
    });
    let reading = tokio::spawn(tasks::read(Arc::clone(&shared), reader));
    let writing = tokio::spawn(tasks::write(Arc::clone(&shared), write));
    Ok(Arc::new(Link { shared, tasks: vec![reading.abort_handle(), writing.abort_handle()] }))
}

/// Waits for a method and returns its arguments.
async fn expect(reader: &mut FrameReader, expected: Method, config: &AmqpConfig) -> Result<Bytes> {
    loop {
        let (chunk, frame) = reader.frame().await?;
        if frame.kind != Kind::Method {
            continue;
        }
        let payload = frame.payload(&chunk);
        let mut rest = Reader(&payload);
        let method = Method::read(&mut rest).map_err(error::malformed)?;
        if method == expected {
            return Ok(payload.slice(payload.len() - rest.0.len()..));
        }
        if method == Method::ConnectionClose {
            let closed = Closed::read(&mut rest).map_err(error::malformed)?;
            return Err(error::refused(config, &closed));
        }
        return Err(Error::new(
            ErrorKind::Engine,
            format!("expected {expected:?}, the broker sent {method:?}"),
        ));
    }
}

fn agree(tune: &[u8], heartbeat: Duration) -> Result<Agreed> {
    let mut reader = Reader(tune);
    let mut read = || Ok((reader.u16()?, reader.u32()?, reader.u16()?));
    let (channel_max, frame_max, _proposed) = read().map_err(error::malformed)?;
    let limit = |offered: u32, ours: u32| if offered == 0 { ours } else { offered.min(ours) };
    let channel_max = limit(u32::from(channel_max), u32::from(CHANNELS_MAX));
    Ok(Agreed {
        channel_max: u16::try_from(channel_max).unwrap_or(CHANNELS_MAX),
        frame_max: limit(frame_max, FRAME_MAX),
        // Ours wins: RabbitMQ takes what the client says.
        heartbeat: u16::try_from(heartbeat.as_secs()).unwrap_or(u16::MAX),
    })
}
