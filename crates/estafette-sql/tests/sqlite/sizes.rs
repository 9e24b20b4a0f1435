//! Large and small bodies, many queues, many messages.

use std::time::{Duration, Instant};

use estafette_core::{Envelope, ErrorKind, Outgoing, QueueName, Transport};
use estafette_sql::{SqlConfig, SqlTransport};

use crate::common::{PATIENCE, ack_all, config, message, open_with_queue, queue_name, receiver, send};

async fn comes_back(transport: &SqlTransport, body: Vec<u8>) {
    transport.publish(&[message(body.clone())]).await.pop().unwrap().unwrap();
    let mut taken = receiver(transport, PATIENCE).await.receive(1, PATIENCE).await.unwrap();
    let delivery = taken.pop().unwrap();
    assert!(delivery.envelope().body == body, "another body of {} bytes", delivery.envelope().body.len());
    delivery.ack().await.unwrap();
}

#[tokio::test]
async fn bodies_of_any_bytes_come_back_as_they_were() {
    let directory = tempfile::tempdir().unwrap();
    let transport = open_with_queue(directory.path()).await;
    comes_back(&transport, Vec::new()).await;
    comes_back(&transport, vec![0]).await;
    comes_back(&transport, (0..=255).rev().collect()).await;
}

#[tokio::test]
async fn a_body_of_the_largest_size_passes_and_one_byte_more_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let transport = open_with_queue(directory.path()).await;
    let limit = transport.guarantees().body_bytes_max;
    assert_eq!(limit, 64 << 20);
    comes_back(&transport, vec![0xA5; limit]).await;
    let results = transport.publish(&[message(vec![0; limit + 1]), message(vec![1])]).await;
    let error = results[0].as_ref().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    assert!(error.report().contains("67108865") && error.report().contains("body_max"), "{}", error.report());
    assert!(results[1].is_ok(), "the rest of the batch is stored");
}

#[tokio::test]
async fn the_largest_size_is_a_setting() {
    let directory = tempfile::tempdir().unwrap();
    let config = SqlConfig { body_bytes_max: 10, ..config(directory.path()) };
    let transport = SqlTransport::connect(config).await.unwrap();
    assert!(transport.publish(&[message(vec![0; 10])]).await.pop().unwrap().is_ok());
    let refused = transport.publish(&[message(vec![0; 11])]).await.pop().unwrap();
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::TooLarge);
}

#[tokio::test]
async fn ten_thousand_queues_are_as_good_as_one() {
    const QUEUES: usize = 10_000;
    let directory = tempfile::tempdir().unwrap();
    let transport = open_with_queue(directory.path()).await;
    let name = |number: usize| -> QueueName { format!("queue-{number}").parse().unwrap() };
    let to = |number: usize| {
        let body = number.to_string().into_bytes();
        Outgoing::send(name(number), Envelope::new("work.made".parse().unwrap(), body.into()))
    };
    let batch: Vec<_> = (0..QUEUES).map(to).collect();
    for result in transport.publish(&batch).await {
        result.unwrap();
    }
    let queues = transport.admin().queues().await.unwrap();
    assert_eq!(queues.len(), QUEUES + 1);
    assert!(queues.iter().all(|queue| queue.ready == u64::from(queue.name != queue_name())));
    for number in (0..QUEUES).step_by(997) {
        let mut receiver = transport.receiver(&name(number), Default::default()).await.unwrap();
        let taken = receiver.receive(10, Duration::ZERO).await.unwrap();
        assert_eq!(taken.len(), 1);
        assert_eq!(taken[0].envelope().body, number.to_string());
        ack_all(taken).await.unwrap();
    }
}

/// How long taking and acknowledging 20 times 10 messages takes: the fastest time of several, as others use the machine.
async fn claiming(transport: &SqlTransport) -> Duration {
    let mut receiver = receiver(transport, PATIENCE).await;
    let mut fastest = Duration::MAX;
    for _ in 0..20 {
        let started = Instant::now();
        let taken = receiver.receive(10, Duration::ZERO).await.unwrap();
        assert_eq!(taken.len(), 10);
        ack_all(taken).await.unwrap();
        fastest = fastest.min(started.elapsed());
    }
    fastest
}

#[tokio::test]
async fn claiming_takes_as_long_with_100_000_waiting_as_with_1_000() {
    let directory = tempfile::tempdir().unwrap();
    let transport = open_with_queue(directory.path()).await;
    send(&transport, 0..1_000).await;
    let few = claiming(&transport).await;
    for start in (0..100_000).step_by(5_000) {
        send(&transport, start..start + 5_000).await;
    }
    let many = claiming(&transport).await;
    assert!(many < few * 5 + Duration::from_millis(2), "{many:?} with many waiting, {few:?} with few");
}
