//! Attempts that ended with their process or their connection.

use std::process::Stdio;

use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
};

use super::*;

const QUEUE: &str = "ESTAFETTE_CRASH_QUEUE";
const STATE: &str = "ESTAFETTE_CRASH_STATE";

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_kills_its_process_is_counted_every_time() {
    let place = place("").await;
    let id = place.send("poison").await;
    for expected in 1..=5 {
        let (mut child, attempt) = consumer(&place).await;
        assert_eq!(attempt, format!("attempt {expected} of {id}"));
        child.kill().await.unwrap();
    }
    let mut receiver = place.receiver().await;
    let delivery = take_one(&mut receiver).await;
    assert_eq!(delivery.attempt(), 6);
    let failure = estafette_core::Failure::new(estafette_core::Reason::AttemptsExhausted, "enough");
    delivery.reject(failure).await.unwrap();
    let letters = place.transport.admin().dead(&place.queue, &Default::default()).await.unwrap();
    assert_eq!((letters.len(), letters[0].attempts), (1, 6));
    receiver.close().await.unwrap();
    place.transport.admin().delete(&place.queue).await.unwrap();
}

/// Starts another process that takes a message and dies with it, and waits until it has.
async fn consumer(place: &Place) -> (Child, String) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crash::takes_a_message_and_waits", "--ignored", "--nocapture"])
        .env(QUEUE, place.queue.as_str())
        .env(STATE, place.state.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    loop {
        let line = tokio::time::timeout(Duration::from_secs(20), lines.next_line()).await;
        let line = line.expect("a line in time").unwrap().expect("a line before the end");
        if line.starts_with("attempt ") {
            return (child, line);
        }
    }
}

#[tokio::test]
#[ignore = "started by the test above as another process"]
#[allow(clippy::print_stdout, reason = "its parent reads it")]
async fn takes_a_message_and_waits() {
    let queue = QueueName::try_from(std::env::var(QUEUE).unwrap()).unwrap();
    let transport = connect(&format!("{}?state={}", server(), std::env::var(STATE).unwrap())).await;
    let mut receiver = transport.receiver(&queue, ReceiveOptions::default()).await.unwrap();
    let delivery = take_one(&mut receiver).await;
    println!("\nattempt {} of {}", delivery.attempt(), delivery.envelope().id);
    std::future::pending::<()>().await;
}
