//! A bounded channel between two tasks.

use std::time::Instant;

use anyhow::{Context as _, ensure};
use tokio::sync::mpsc;

use super::body;
use crate::case::Rate;

/// How many batches may wait between the tasks.
const WAITING_MAX: usize = 64;

/// Hands `messages` from one task to another, `batch` at a time.
///
/// # Errors
///
/// When a message went missing.
pub async fn hand_over(messages: u32, batch: usize) -> anyhow::Result<Rate> {
    let bodies: Vec<Vec<u8>> = (0..messages).map(body).collect();
    let batches: Vec<Vec<Vec<u8>>> = bodies.chunks(batch).map(<[_]>::to_vec).collect();
    let (sender, mut receiver) = mpsc::channel(WAITING_MAX);

    let started = Instant::now();
    let sending = tokio::spawn(async move {
        for batch in batches {
            if sender.send(batch).await.is_err() {
                break;
            }
        }
    });
    let mut received = 0;
    while let Some(batch) = receiver.recv().await {
        received += batch.len();
    }
    let elapsed = started.elapsed();
    sending.await.context("the sending task failed")?;
    ensure!(received == bodies.len(), "{received} of {messages} messages arrived");
    Ok(Rate::of(messages, elapsed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn everything_arrives() {
        assert!(hand_over(1000, 7).await.unwrap().per_second() > 0.0);
    }
}
