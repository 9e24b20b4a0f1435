//! The test kit, used as an application's tests would use it.
#![cfg(feature = "testkit")]
#![allow(clippy::unwrap_used, reason = "a test may")]

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use estafette::{
    Bus, Consumer, Context, Error, ErrorKind, Message, Outcome, Reason, Retry, Verdict,
    testkit::{Fate, Faults, TestKit, When},
};
use serde::{Deserialize, Serialize};

const MINUTE: Duration = Duration::from_secs(60);

#[derive(Message, Serialize, Deserialize, Debug, PartialEq)]
#[message(topic = "order.created")]
struct OrderCreated {
    id: u32,
}

#[derive(Message, Serialize, Deserialize, Debug, PartialEq)]
#[message(topic = "invoice.sent")]
struct InvoiceSent {
    order: u32,
}

fn unavailable() -> Error {
    Error::new(ErrorKind::Unavailable, "the printer is off")
}

/// Sends an invoice for each order.
fn billing(bus: &Bus) -> Consumer {
    let bus_of_handler = bus.clone();
    bus.consumer("billing").subscribe::<OrderCreated>().handle(move |order: OrderCreated, _: Context| {
        let bus = bus_of_handler.clone();
        async move { bus.publish(&InvoiceSent { order: order.id }).await.map(drop) }
    })
}

/// Fails as long as `failures` are left, a minute apart.
fn failing(failures: &Arc<AtomicU32>) -> impl Fn(&Bus) -> Consumer + Send + Sync + 'static {
    let failures = Arc::clone(failures);
    move |bus| {
        let failures = Arc::clone(&failures);
        bus.consumer("failing")
            .subscribe::<OrderCreated>()
            .retry(Retry::fixed(MINUTE).attempts_max(3))
            .handle(move |_: OrderCreated, _: Context| {
                let left =
                    failures.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
                async move { if left.is_ok() { Err(unavailable()) } else { Ok(()) } }
            })
    }
}

/// Counts how often each order was handled.
fn counting(handled: &Arc<Mutex<Vec<u32>>>) -> impl Fn(&Bus) -> Consumer + Send + Sync + 'static {
    let handled = Arc::clone(handled);
    move |bus| {
        let handled = Arc::clone(&handled);
        bus.consumer("counting").subscribe::<OrderCreated>().handle(move |order: OrderCreated, _: Context| {
            handled.lock().unwrap().push(order.id);
            async {}
        })
    }
}

async fn publish(kit: &TestKit, ids: impl IntoIterator<Item = u32>) {
    for id in ids {
        kit.bus().publish(&OrderCreated { id }).await.unwrap();
    }
}

#[tokio::test]
async fn nothing_is_handled_before_it_is_asked_for() {
    let mut kit = TestKit::new();
    kit.consumer(billing).await.unwrap();
    publish(&kit, [1]).await;
    kit.assert_handled("billing", 0);
    kit.run_until_idle().await.unwrap();
    kit.assert_acked("billing", 1);
}

#[tokio::test]
async fn what_handlers_publish_is_handled_in_the_same_run() {
    let mut kit = TestKit::new();
    kit.consumer(billing).await.unwrap();
    kit.consumer(|bus| bus.consumer("archive").subscribe_to("#").handle_any(|_: Context| async {}))
        .await
        .unwrap();
    publish(&kit, [1, 2]).await;
    kit.run_until_idle().await.unwrap();
    kit.assert_acked("archive", 4);
    assert_eq!(kit.published::<InvoiceSent>().unwrap(), [InvoiceSent { order: 1 }, InvoiceSent { order: 2 }]);
}

#[tokio::test]
async fn the_same_consumers_run_again_and_again() {
    let mut kit = TestKit::new();
    kit.consumer(billing).await.unwrap();
    for round in 1..=3 {
        publish(&kit, [round]).await;
        kit.run_until_idle().await.unwrap();
        kit.assert_acked("billing", round as usize);
    }
}

#[tokio::test]
async fn a_retry_waits_for_the_clock() {
    let mut kit = TestKit::new();
    kit.consumer(failing(&Arc::new(AtomicU32::new(1)))).await.unwrap();
    publish(&kit, [1]).await;
    kit.run_until_idle().await.unwrap();
    kit.assert_retried("failing", 1);
    kit.advance(MINUTE / 2).await.unwrap();
    kit.assert_handled("failing", 1);
    kit.advance(MINUTE / 2).await.unwrap();
    kit.assert_acked("failing", 1);
    assert_eq!(kit.handled("failing")[1].attempt, 2);
}

#[tokio::test]
async fn run_to_the_end_goes_through_all_retries() {
    let mut kit = TestKit::new();
    kit.consumer(failing(&Arc::new(AtomicU32::new(9)))).await.unwrap();
    publish(&kit, [1]).await;
    kit.run_to_the_end().await.unwrap();
    kit.assert_retried("failing", 2);
    kit.assert_dead("failing", 1);
    let letters = kit.dead("failing").await.unwrap();
    assert_eq!((letters[0].reason, letters[0].attempts), (Reason::AttemptsExhausted, 3));
}

#[tokio::test]
async fn delayed_and_expiring_messages_follow_the_clock() {
    let mut kit = TestKit::new();
    kit.consumer(billing).await.unwrap();
    kit.bus().publish(&OrderCreated { id: 1 }).delay(MINUTE).await.unwrap();
    kit.bus().publish(&OrderCreated { id: 2 }).delay(MINUTE * 2).expires_in(MINUTE).await.unwrap();
    kit.run_until_idle().await.unwrap();
    kit.assert_handled("billing", 0);
    kit.advance(MINUTE).await.unwrap();
    kit.assert_acked("billing", 1);
    kit.advance(MINUTE).await.unwrap();
    kit.assert_handled("billing", 1);
    assert_eq!(kit.dead("billing").await.unwrap()[0].reason, Reason::Expired);
}

#[tokio::test]
async fn a_duplicate_is_a_message_with_the_same_id() {
    let handled = Arc::default();
    let mut kit = TestKit::with_faults(Faults::none().duplicate(When::Always));
    kit.consumer(counting(&handled)).await.unwrap();
    publish(&kit, [1, 2]).await;
    kit.run_until_idle().await.unwrap();
    assert_eq!(*handled.lock().unwrap(), [1, 2, 1, 2]);
    let ids: HashSet<_> =
        kit.handled("counting").into_iter().map(|handled| handled.envelope.id.clone()).collect();
    assert_eq!(ids.len(), 2);
    kit.assert_published::<OrderCreated>(2);
}

#[tokio::test]
async fn a_message_whose_ack_is_lost_comes_again_as_another_attempt() {
    let handled = Arc::default();
    let mut kit = TestKit::with_faults(Faults::none().lose_acks(When::Nth(2)));
    kit.consumer(counting(&handled)).await.unwrap();
    publish(&kit, [1, 2, 3]).await;
    kit.run_until_idle().await.unwrap();
    let mut sorted = handled.lock().unwrap().clone();
    sorted.sort_unstable();
    assert_eq!(sorted, [1, 2, 2, 3]);
    let of_two: Vec<_> = kit
        .handled("counting")
        .into_iter()
        .filter(|handled| *handled.envelope.body == *br#"{"id":2}"#)
        .collect();
    assert_eq!((of_two[0].attempt, &of_two[0].fate), (1, &Fate::AckLost));
    assert_eq!((of_two[1].attempt, &of_two[1].fate), (2, &Fate::Settled(Outcome::Ack)));
}

#[tokio::test]
async fn another_order_is_the_same_for_the_same_seed() {
    let mut orders = Vec::new();
    for seed in [7, 7, 8] {
        let handled = Arc::default();
        let mut kit = TestKit::with_faults(Faults::none().reorder().seed(seed));
        kit.consumer(counting(&handled)).await.unwrap();
        publish(&kit, 0..50).await;
        kit.run_until_idle().await.unwrap();
        orders.push(handled.lock().unwrap().clone());
    }
    assert_eq!(orders[0], orders[1]);
    assert_ne!(orders[0], orders[2]);
    assert_ne!(orders[0], (0..50).collect::<Vec<_>>());
    orders[0].sort_unstable();
    assert_eq!(orders[0], (0..50).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_late_message_becomes_visible_within_the_time_given() {
    let handled = Arc::default();
    let topic = When::Topic("order.*".parse().unwrap());
    let mut kit = TestKit::with_faults(Faults::none().delay(topic, MINUTE));
    kit.consumer(counting(&handled)).await.unwrap();
    publish(&kit, 0..20).await;
    kit.run_until_idle().await.unwrap();
    assert!(handled.lock().unwrap().len() < 20);
    kit.advance(MINUTE).await.unwrap();
    kit.assert_acked("counting", 20);
}

#[tokio::test]
async fn a_share_of_the_messages_is_struck() {
    let handled = Arc::default();
    let mut kit = TestKit::with_faults(Faults::none().duplicate(When::Share(0.5)));
    kit.consumer(counting(&handled)).await.unwrap();
    publish(&kit, 0..200).await;
    kit.run_until_idle().await.unwrap();
    let count = handled.lock().unwrap().len();
    assert!((250..350).contains(&count), "{count}");
}

#[tokio::test]
async fn a_handler_that_remembers_ids_is_proved_idempotent() {
    let charged = Arc::new(AtomicU32::new(0));
    let faults = Faults::none().duplicate(When::Always).lose_acks(When::Every(2)).reorder();
    let mut kit = TestKit::with_faults(faults);
    let (seen, count) = (Arc::<Mutex<HashSet<String>>>::default(), Arc::clone(&charged));
    kit.consumer(move |bus| {
        let (seen, count) = (Arc::clone(&seen), Arc::clone(&count));
        bus.consumer("charging").subscribe::<OrderCreated>().handle(
            move |_: OrderCreated, context: Context| {
                if seen.lock().unwrap().insert(context.envelope().id.to_string()) {
                    count.fetch_add(1, Ordering::SeqCst);
                }
                async {}
            },
        )
    })
    .await
    .unwrap();
    publish(&kit, 0..30).await;
    kit.run_to_the_end().await.unwrap();
    assert_eq!(charged.load(Ordering::SeqCst), 30);
    assert!(kit.handled("charging").len() > 60);
}

#[tokio::test]
async fn a_rejected_message_and_a_panic_are_told_apart() {
    let mut kit = TestKit::new();
    kit.consumer(|bus| {
        bus.consumer("choosy").subscribe::<OrderCreated>().retry(Retry::fixed(MINUTE)).handle(
            |order: OrderCreated, _: Context| async move {
                assert_ne!(order.id, 2, "two is too much");
                Verdict::reject("not for me")
            },
        )
    })
    .await
    .unwrap();
    publish(&kit, [1, 2]).await;
    kit.run_until_idle().await.unwrap();
    kit.assert_dead("choosy", 1);
    kit.assert_retried("choosy", 1);
}

#[tokio::test]
#[should_panic(expected = "deliveries of billing acked: 1, not 2\npublished:\n  order.created {\"id\":1}")]
async fn a_failed_assertion_tells_what_happened() {
    let mut kit = TestKit::new();
    kit.consumer(billing).await.unwrap();
    publish(&kit, [1]).await;
    kit.run_until_idle().await.unwrap();
    kit.assert_acked("billing", 2);
}

#[tokio::test]
async fn consumers_that_never_rest_are_reported() {
    let mut kit = TestKit::new().patience(Duration::from_millis(200));
    kit.consumer(|bus| {
        let bus_of_handler = bus.clone();
        bus.consumer("echo").subscribe::<OrderCreated>().handle(move |order: OrderCreated, _: Context| {
            let bus = bus_of_handler.clone();
            async move { bus.publish(&order).await.map(drop) }
        })
    })
    .await
    .unwrap();
    publish(&kit, [1]).await;
    let error = kit.run_until_idle().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    assert!(error.report().to_string().contains("echo"), "{}", error.report());
}

#[tokio::test]
async fn a_mistake_in_a_consumer_is_reported() {
    let mut kit = TestKit::new();
    kit.consumer(|bus| bus.consumer("idle")).await.unwrap();
    assert_eq!(kit.run_until_idle().await.unwrap_err().kind(), ErrorKind::InvalidInput);
}
