//! Messages of queues: who gets them, and what becomes of those a backend does not take.

use std::collections::BTreeSet;

use crate::Stage;

const CONSUME: &str = r#"{"m":"queue.pop","p":["foo"],"i":1}"#;
const CONSUME_WITH_ACK: &str = r#"{"m":"queue.pop","p":{"t":["foo"],"ack":true},"i":1}"#;

#[tokio::test]
async fn a_connection_that_has_not_consumed_hears_nothing() {
    let stage = Stage::new().await;
    let mut backend = stage.backend().await;
    stage.push("foo", "[1]");
    assert_eq!(backend.ask("ping").await, "pong");
    assert_eq!(stage.depth("foo"), (1, 0));
    stage.end().await;
}

#[tokio::test]
async fn a_second_registration_and_a_cancel_of_none_are_refused() {
    let stage = Stage::new().await;
    let mut backend = stage.backend().await;
    let code = |answer: String| serde_json::from_str::<serde_json::Value>(&answer).unwrap()["E"]["c"].clone();
    assert_eq!(code(backend.ask(r#"{"m":"queue.unpop","p":[],"i":0}"#).await), 203);
    assert_eq!(backend.ask(CONSUME).await, r#"{"E":null,"r":{"s":true},"i":1}"#);
    assert_eq!(code(backend.ask(CONSUME).await), 202);
    assert_eq!(code(backend.ask(r#"{"m":"queue.unpop","p":["bar"],"i":0}"#).await), 203);
    assert_eq!(code(backend.ask(r#"{"m":"queue.ack","p":[1],"i":0}"#).await), 101);
    assert_eq!(
        backend.ask(r#"{"m":"queue.unpop","p":{},"i":2}"#).await,
        r#"{"E":null,"r":{"s":true},"i":2}"#
    );
    assert_eq!(stage.depth("foo"), (0, 0));
    stage.push("foo", "[1]");
    assert_eq!(backend.ask("ping").await, "pong");
    assert_eq!(backend.ask(CONSUME).await, r#"{"E":null,"r":{"s":true},"i":1}"#);
    assert_eq!(backend.next_json().await["p"]["d"], serde_json::json!([1]));
    stage.end().await;
}

#[tokio::test]
async fn a_registration_ends_with_its_connection() {
    let stage = Stage::new().await;
    let mut backend = stage.backend().await;
    backend.ask(CONSUME).await;
    assert_eq!(stage.depth("foo"), (0, 1));
    drop(backend);
    stage.until(|stage| stage.depth("foo") == (0, 0)).await;
    stage.end().await;
}

#[tokio::test]
async fn unacknowledged_messages_come_again_when_their_consumer_dies() {
    let stage = Stage::new().await;
    let mut backend = stage.backend().await;
    backend.ask(CONSUME_WITH_ACK).await;
    for number in 1..=3 {
        stage.push("foo", &format!("[{number}]"));
    }
    let mut tags = Vec::new();
    for _ in 0..3 {
        tags.push(backend.next_json().await["p"]["a"].as_u64().unwrap());
    }
    let request = format!(r#"{{"m":"queue.ack","p":[{}],"i":2}}"#, tags[1]);
    assert_eq!(backend.ask(&request).await, r#"{"E":null,"r":{"s":true},"i":2}"#);
    drop(backend);
    let mut other = stage.backend().await;
    other.ask(r#"{"method":"queue.consume","params":{"queues":["foo"],"ack":true},"id":0}"#).await;
    for number in [1, 3] {
        let event = other.next_json().await;
        assert_eq!(event["result"]["data"], serde_json::json!([number]));
        assert!(event["result"]["tag"].is_u64());
    }
    stage.end().await;
}

/// Far more than sockets and the session hold.
const MANY: u64 = 1_500;

fn push_many(stage: &Stage) {
    let filler = "x".repeat(16 << 10);
    for number in 0..MANY {
        stage.push("foo", &format!("[{number},\"{filler}\"]"));
    }
}

#[tokio::test]
async fn a_consumer_that_does_not_read_leaves_the_messages_in_the_queue() {
    let stage = Stage::new().await;
    let mut backend = stage.backend().await;
    backend.ask(CONSUME).await;
    push_many(&stage);
    // It takes some, and then no more.
    stage.until(|stage| stage.depth("foo").0 < 1_490).await;
    let mut waiting = 0;
    stage
        .until(|stage| {
            let before = std::mem::replace(&mut waiting, stage.depth("foo").0);
            before == waiting
        })
        .await;
    assert!(waiting > 500, "{waiting} of {MANY} wait");
    for number in 0..MANY {
        assert_eq!(backend.next_json().await["p"]["d"][0], number);
    }
    stage.end().await;
}

#[tokio::test]
async fn what_a_dead_consumer_did_not_take_goes_to_another() {
    let stage = Stage::new().await;
    let mut backend = stage.backend().await;
    backend.ask(CONSUME_WITH_ACK).await;
    push_many(&stage);
    stage.until(|stage| stage.depth("foo").0 < 1_490).await;
    drop(backend);
    let mut other = stage.backend().await;
    other.ask(CONSUME).await;
    let mut numbers = BTreeSet::new();
    while numbers.len() < usize::try_from(MANY).unwrap() {
        numbers.insert(other.next_json().await["p"]["d"][0].as_u64().unwrap());
    }
    stage.end().await;
}

#[tokio::test]
async fn two_consumers_share_the_messages() {
    let stage = Stage::new().await;
    let (mut a, mut b) = (stage.backend().await, stage.backend().await);
    a.ask(CONSUME).await;
    b.ask(CONSUME).await;
    let (mut of_a, mut of_b) = (0, 0);
    for number in 0..10 {
        stage.push("foo", &format!("[{number}]"));
        let event = tokio::select! {
            event = a.next_json() => { of_a += 1; event }
            event = b.next_json() => { of_b += 1; event }
        };
        assert_eq!(event["p"]["d"][0], number);
    }
    // Each in turn: the one that has waited longest.
    assert_eq!((of_a, of_b), (5, 5));
    stage.end().await;
}
