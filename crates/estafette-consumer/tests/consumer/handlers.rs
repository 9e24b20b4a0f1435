//! Which handler gets a message, and what becomes of one that none can take.

use std::time::Duration;

use estafette_consumer::{Consumer, Context, StopReason};
use estafette_core::{Bytes, Envelope, ErrorKind, Outgoing, Pattern, Reason, Timestamp, Topic, Transport};

use crate::stage::{Invoice, Notes, Order, Stage, not_to_be_handled, order, queue};

#[tokio::test(start_paused = true)]
async fn several_types_share_a_queue_each_with_its_handler() {
    let stage = Stage::with_orders([1, 2]).await;
    stage.send(&Invoice { number: 7 }).await;
    let notes = Notes::new();
    let (orders, invoices) = (notes.clone(), notes.clone());
    let summary = stage
        .consumer()
        .handle(move |order: Order, _| {
            orders.add(format!("order {}", order.id));
            std::future::ready(())
        })
        .handle(move |invoice: Invoice, _| {
            invoices.add(format!("invoice {}", invoice.number));
            std::future::ready(())
        })
        .run_until_empty()
        .await
        .unwrap();
    assert_eq!(notes.all(), ["order 1", "order 2", "invoice 7"]);
    assert_eq!((summary.acked, summary.reason), (3, StopReason::Empty));
}

#[tokio::test(start_paused = true)]
async fn an_untyped_handler_takes_what_no_typed_one_does() {
    let stage = Stage::with_orders([1]).await;
    stage.send_body("anything.else", b"\xff").await;
    let notes = Notes::new();
    let rest = notes.clone();
    let summary = stage
        .consumer()
        .handle(|_: Order, _| async {})
        .handle_any(move |context: Context| {
            rest.add(context.envelope().body.clone());
            std::future::ready(())
        })
        .run_until_empty()
        .await
        .unwrap();
    assert_eq!(notes.all(), [Bytes::from_static(b"\xff")]);
    assert_eq!(summary.acked, 2);
}

#[tokio::test(start_paused = true)]
async fn subscribing_brings_what_is_published_to_the_topic() {
    let stage = Stage::new();
    let consumer =
        || stage.consumer().subscribe::<Order>().subscribe_to("invoice.*").handle_any(|_| async {});
    // Declares the queue.
    assert_eq!(consumer().run_until_empty().await.unwrap().acked, 0);
    stage.put(Outgoing::publish(Envelope::of(&order(1)).unwrap())).await;
    stage.put(Outgoing::publish(Envelope::of(&Invoice { number: 1 }).unwrap())).await;
    assert_eq!(consumer().run_until_empty().await.unwrap().acked, 2);
    let patterns: Vec<Pattern> = ["invoice.*", "order.created"].map(|text| text.try_into().unwrap()).into();
    assert_eq!(stage.status().await.patterns, patterns);
}

#[tokio::test(start_paused = true)]
async fn a_topic_nobody_handles_is_a_dead_letter_that_says_so() {
    let stage = Stage::new();
    stage.send_body("user.deleted", b"{}").await;
    let summary = stage.consumer().handle(|_: Order, _| async {}).run_until_empty().await.unwrap();
    assert_eq!(summary.dead, 1);
    let letter = stage.dead_letter().await;
    assert_eq!((letter.reason, letter.attempts), (Reason::Unhandled, 1));
    assert!(
        letter.error.contains("user.deleted") && letter.error.contains("order.created"),
        "{}",
        letter.error
    );
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_decode_is_kept_as_it_is() {
    let stage = Stage::new();
    stage.send_body("order.created", b"{\"id\":\xff").await;
    let summary = stage.consumer().handle(|_: Order, _| async {}).run_until_empty().await.unwrap();
    assert_eq!((summary.dead, summary.retried), (1, 0));
    let letter = stage.dead_letter().await;
    assert_eq!((letter.reason, letter.attempts), (Reason::Undecodable, 1));
    assert_eq!(letter.envelope.body, &b"{\"id\":\xff"[..]);
}

#[tokio::test(start_paused = true)]
async fn an_expired_message_is_not_handled() {
    let stage = Stage::new();
    let mut envelope = Envelope::of(&order(1)).unwrap();
    envelope.expires_at = Some(Timestamp::now());
    stage.put(Outgoing::send(queue(), envelope)).await;
    let summary = stage.consumer().handle(not_to_be_handled).run_until_empty().await.unwrap();
    assert_eq!(summary.retried, 0);
    assert_eq!(stage.dead_letter().await.reason, Reason::Expired);
}

#[tokio::test(start_paused = true)]
async fn a_handler_knows_its_message_from_its_context() {
    let stage = Stage::new();
    let mut envelope = Envelope::new(Topic::from_static("order.created"), Bytes::new());
    envelope.headers.insert("tenant", "acme").unwrap();
    let id = envelope.id.clone();
    stage.put(Outgoing::send(queue(), envelope)).await;
    let handler = move |context: Context| {
        let id = id.clone();
        async move {
            assert_eq!((context.queue(), context.attempt()), (&queue(), 1));
            assert_eq!((context.header("tenant"), context.header("other")), (Some("acme"), None));
            assert_eq!(context.envelope().id, id);
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert_eq!(Context::current().unwrap().envelope().id, id);
        }
    };
    assert_eq!(stage.consumer().handle_any(handler).run_until_empty().await.unwrap().acked, 1);
    assert!(Context::current().is_none());
}

#[tokio::test]
async fn a_mistake_in_the_settings_is_reported_when_it_runs() {
    let stage = Stage::new();
    let kind = |result: estafette_core::Result<_>| result.unwrap_err().kind();
    assert_eq!(kind(stage.consumer().run().await), ErrorKind::InvalidInput);
    let named = |name: &str| Consumer::new(stage.transport(), name).handle_any(|_| async {});
    assert_eq!(kind(named("bad name").run().await), ErrorKind::InvalidInput);
    assert_eq!(kind(named("good").subscribe_to("a.b*").run().await), ErrorKind::InvalidInput);
    assert!(stage.memory.admin().queues().await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_temporary_queue_gets_what_comes_while_it_runs_and_goes_away() {
    let stage = Stage::new();
    let publisher = stage.clone();
    let publishing = async move {
        while publisher.memory.admin().queues().await.unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        publisher.put(Outgoing::publish(Envelope::of(&order(1)).unwrap())).await;
    };
    let consumer = Consumer::temporary(stage.transport()).subscribe::<Order>().handle(|_: Order, _| async {});
    let (summary, ()) = tokio::join!(consumer.run_for_count(1), publishing);
    assert_eq!(summary.unwrap().acked, 1);
    assert!(stage.memory.admin().queues().await.unwrap().is_empty());
}
