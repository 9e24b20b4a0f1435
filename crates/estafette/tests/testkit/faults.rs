//! What goes wrong when the test says so.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;
use std::time::Duration;

use estafette::{
    Context, Outcome,
    testkit::{Fate, Faults, TestKit, When},
};

use crate::{MINUTE, OrderCreated, billing, counting, publish};

#[tokio::test]
async fn a_duplicate_is_a_message_with_the_same_id() {
    let handled = Arc::default();
    let kit = TestKit::with_faults(Faults::none().duplicate(When::always()));
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
    let kit = TestKit::with_faults(Faults::none().lose_acks(When::nth(2)));
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
        let kit = TestKit::with_faults(Faults::none().reorder(When::always()).seed(seed));
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
async fn a_late_message_is_handed_over_when_its_time_has_come() {
    let handled = Arc::default();
    let kit = TestKit::with_faults(Faults::none().delay(When::every(2).topic("order.*"), MINUTE));
    kit.consumer(counting(&handled)).await.unwrap();
    publish(&kit, 1..=4).await;
    kit.run_until_idle().await.unwrap();
    assert_eq!(*handled.lock().unwrap(), [1, 3]);
    kit.advance(MINUTE - Duration::from_micros(1)).await.unwrap();
    kit.assert_acked("counting", 2);
    kit.advance(Duration::from_micros(1)).await.unwrap();
    assert_eq!(*handled.lock().unwrap(), [1, 3, 2, 4]);
    assert!(kit.handled("counting").iter().all(|handled| handled.attempt == 1));
}

#[tokio::test]
async fn a_share_of_the_messages_is_struck() {
    let handled = Arc::default();
    let kit = TestKit::with_faults(Faults::none().duplicate(When::share(0.5)));
    kit.consumer(counting(&handled)).await.unwrap();
    publish(&kit, 0..200).await;
    kit.run_until_idle().await.unwrap();
    let count = handled.lock().unwrap().len();
    assert!((250..350).contains(&count), "{count}");
}

#[tokio::test]
async fn a_handler_that_remembers_ids_is_proved_idempotent() {
    let charged = Arc::new(AtomicU32::new(0));
    let faults = Faults::none().duplicate(When::always()).lose_acks(When::every(2)).reorder(When::always());
    let kit = TestKit::with_faults(faults);
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
async fn the_third_ack_of_one_queue_is_lost_and_no_other() {
    let handled = Arc::default();
    let kit = TestKit::with_faults(Faults::none().lose_acks(When::nth(3).queue("counting")));
    kit.consumer(counting(&handled)).await.unwrap();
    kit.consumer(billing).await.unwrap();
    publish(&kit, 1..=4).await;
    kit.run_until_idle().await.unwrap();
    kit.assert_handled("billing", 4);
    kit.assert_handled("counting", 5);
    kit.assert_acked("counting", 4);
    let lost: Vec<_> =
        kit.handled("counting").into_iter().filter(|handled| handled.fate == Fate::AckLost).collect();
    assert_eq!(lost.len(), 1);
    assert_eq!(*lost[0].envelope.body, *br#"{"id":3}"#);
}

#[tokio::test]
async fn faults_begin_and_end_when_the_test_says_so() {
    let handled = Arc::default();
    let kit = TestKit::new();
    kit.consumer(counting(&handled)).await.unwrap();
    for (faults, count) in [(Faults::none().duplicate(When::always()), 2), (Faults::none(), 3)] {
        kit.set_faults(faults);
        publish(&kit, [1]).await;
        kit.run_until_idle().await.unwrap();
        kit.assert_acked("counting", count);
    }
}

#[tokio::test]
async fn another_order_for_some_leaves_the_others_in_their_places() {
    let handled = Arc::default();
    let kit = TestKit::with_faults(Faults::none().reorder(When::every(2)).seed(3));
    kit.consumer(counting(&handled)).await.unwrap();
    publish(&kit, 0..20).await;
    kit.run_until_idle().await.unwrap();
    let handled = handled.lock().unwrap().clone();
    for (place, id) in handled.iter().enumerate() {
        assert!(place % 2 == 1 || *id as usize == place, "{handled:?}");
    }
    assert_ne!(handled, (0..20).collect::<Vec<_>>());
}
