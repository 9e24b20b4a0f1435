//! The clock that only the test moves.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use estafette::{Context, Message, Reason, Retry, testkit::TestKit};
use serde::{Deserialize, Serialize};

use crate::{MINUTE, OrderCreated, billing, failing, publish, unavailable};

#[tokio::test]
async fn a_retry_waits_for_the_clock() {
    let kit = TestKit::new();
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
    let kit = TestKit::new();
    kit.consumer(failing(&Arc::new(AtomicU32::new(9)))).await.unwrap();
    publish(&kit, [1]).await;
    kit.run_to_the_end().await.unwrap();
    kit.assert_retried("failing", 2);
    kit.assert_dead("failing", 1);
    let letters = kit.dead("failing");
    assert_eq!((letters[0].reason, letters[0].attempts), (Reason::AttemptsExhausted, 3));
}

#[tokio::test]
async fn delayed_and_expiring_messages_follow_the_clock() {
    let kit = TestKit::new();
    kit.consumer(billing).await.unwrap();
    kit.bus().publish(&OrderCreated { id: 1 }).delay(MINUTE).await.unwrap();
    kit.bus().publish(&OrderCreated { id: 2 }).delay(MINUTE * 2).expires_in(MINUTE).await.unwrap();
    kit.run_until_idle().await.unwrap();
    kit.assert_handled("billing", 0);
    kit.advance(MINUTE).await.unwrap();
    kit.assert_acked("billing", 1);
    kit.advance(MINUTE).await.unwrap();
    kit.assert_handled("billing", 1);
    assert_eq!(kit.dead("billing")[0].reason, Reason::Expired);
}

#[tokio::test]
async fn the_clock_stands_still_between_moves() {
    let kit = TestKit::new();
    kit.consumer(|bus| {
        let retry = Retry::fixed(Duration::from_micros(1)).attempts_max(2);
        bus.consumer("hasty")
            .subscribe::<OrderCreated>()
            .retry(retry)
            .handle(|_: OrderCreated, _: Context| async { Err::<(), _>(unavailable()) })
    })
    .await
    .unwrap();
    publish(&kit, [1]).await;
    let before = kit.now();
    for _ in 0..50 {
        kit.run_until_idle().await.unwrap();
    }
    kit.assert_handled("hasty", 1);
    assert_eq!(kit.now(), before);
    kit.advance(Duration::from_micros(1)).await.unwrap();
    kit.assert_dead("hasty", 1);
}

#[tokio::test]
async fn what_becomes_due_while_the_clock_moves_happens_at_its_time() {
    let kit = TestKit::new();
    kit.consumer(|bus| {
        let retry = Retry::exponential(MINUTE).jitter(0.0).attempts_max(4);
        bus.consumer("stubborn")
            .subscribe::<OrderCreated>()
            .retry(retry)
            .handle(|_: OrderCreated, _: Context| async { Err::<(), _>(unavailable()) })
    })
    .await
    .unwrap();
    publish(&kit, [1]).await;
    kit.bus().publish(&OrderCreated { id: 2 }).delay(MINUTE * 6).await.unwrap();
    kit.advance(MINUTE * 60).await.unwrap();
    let minutes: Vec<_> = kit.handled("stubborn").iter().map(|handled| handled.at.as_secs() / 60).collect();
    // The first after 1, 2 and 4 minutes more; the second begins at minute 6.
    assert_eq!(minutes, [0, 1, 3, 6, 7, 7, 9, 13]);
}

#[tokio::test]
async fn an_expiry_counts_from_publishing_after_the_clock_was_moved() {
    let kit = TestKit::new();
    kit.consumer(billing).await.unwrap();
    kit.advance(MINUTE * 60).await.unwrap();
    kit.bus().publish(&OrderCreated { id: 1 }).expires_in(MINUTE).await.unwrap();
    kit.bus().publish(&OrderCreated { id: 2 }).expires_in(MINUTE).delay(MINUTE).await.unwrap();
    kit.run_until_idle().await.unwrap();
    kit.assert_acked("billing", 1);
    kit.advance(MINUTE).await.unwrap();
    kit.assert_dead("billing", 1);
}

#[tokio::test]
async fn a_key_that_waits_for_a_retry_does_not_keep_the_kit_from_rest() {
    #[derive(Message, Serialize, Deserialize)]
    #[message(topic = "account.changed", key = "account")]
    struct AccountChanged {
        account: u32,
    }

    let kit = TestKit::new();
    kit.consumer(|bus| {
        bus.consumer("ordered")
            .subscribe::<AccountChanged>()
            .ordered_by_key()
            .retry(Retry::fixed(MINUTE))
            .handle(|_: AccountChanged, context: Context| async move {
                if context.attempt() == 1 { Err(unavailable()) } else { Ok(()) }
            })
    })
    .await
    .unwrap();
    for _ in 0..2 {
        kit.bus().publish(&AccountChanged { account: 1 }).await.unwrap();
    }
    kit.run_until_idle().await.unwrap();
    let status = kit.status("ordered");
    assert_eq!((status.ready, status.delayed), (1, 1));
    kit.run_to_the_end().await.unwrap();
    kit.assert_acked("ordered", 2);
    kit.assert_empty("ordered");
}
