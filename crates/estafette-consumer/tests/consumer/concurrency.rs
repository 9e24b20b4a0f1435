//! Several handlers at once, and the order of each key.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use estafette_consumer::Context;
use estafette_core::{QueueName, ReceiveOptions, Retry, Transport};
use tokio::{
    sync::{Barrier, Notify},
    time::Instant,
};

use crate::stage::{Counter, Notes, Order, Stage, order, queue};

#[tokio::test(start_paused = true)]
async fn as_many_handlers_run_at_once_as_asked_for_and_no_more() {
    let stage = Stage::with_orders(0..160).await;
    let barrier = Arc::new(Barrier::new(16));
    let (running, most) = (Counter::default(), Notes::new());
    let peaks = most.clone();
    let handler = move |_: Order, _| {
        let (barrier, running, peaks) = (Arc::clone(&barrier), running.clone(), peaks.clone());
        async move {
            peaks.add(running.raise());
            // Ends only when sixteen have come this far.
            barrier.wait().await;
            running.lower();
        }
    };
    let consumer = stage.consumer().concurrency(16).prefetch(1000).handle(handler);
    assert_eq!(consumer.run_until_empty().await.unwrap().acked, 160);
    assert_eq!(most.all().into_iter().max(), Some(16));
}

#[tokio::test(start_paused = true)]
async fn one_handler_at_a_time_is_the_default() {
    let stage = Stage::with_orders(0..50).await;
    let running = Counter::default();
    let handler = move |_: Order, _| {
        let running = running.clone();
        async move {
            assert_eq!(running.raise(), 1);
            tokio::time::sleep(Duration::from_millis(5)).await;
            running.lower();
        }
    };
    assert_eq!(stage.consumer().handle(handler).run_until_empty().await.unwrap().acked, 50);
}

#[tokio::test(start_paused = true)]
async fn the_order_of_each_key_is_kept_under_concurrency_and_retries() {
    let stage = Stage::new();
    let customer = |id: u64| format!("customer {}", id * 7 % 10);
    for id in 0..300 {
        stage.send(&Order { id, customer: customer(id) }).await;
    }
    let done = Notes::new();
    let busy: Arc<Mutex<HashSet<String>>> = Arc::default();
    let noted = done.clone();
    let handler = move |order: Order, context: Context| {
        let (noted, busy) = (noted.clone(), Arc::clone(&busy));
        async move {
            assert!(busy.lock().unwrap().insert(order.customer.clone()), "two of a key at once");
            tokio::time::sleep(Duration::from_millis(order.id * 31 % 20)).await;
            busy.lock().unwrap().remove(&order.customer);
            if u64::from(context.attempt()) <= order.id % 3 {
                return Err("not yet");
            }
            noted.add(order);
            Ok(())
        }
    };
    let retry = Retry::exponential(Duration::from_millis(50));
    let consumer = || stage.consumer().concurrency(16).ordered_by_key().retry(retry).handle(handler.clone());
    // Two consumers of the queue, each with sixteen handlers.
    let (one, two) = tokio::join!(consumer().run_until_empty(), consumer().run_until_empty());
    let (one, two) = (one.unwrap(), two.unwrap());
    assert_eq!((one.acked + two.acked, one.retried + two.retried), (300, 300));
    let mut by_customer: HashMap<String, Vec<u64>> = HashMap::new();
    for order in done.all() {
        by_customer.entry(order.customer).or_default().push(order.id);
    }
    assert_eq!(by_customer.len(), 10);
    for (customer, ids) in by_customer {
        assert!(ids.is_sorted(), "{customer}: {ids:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_slow_handler_cannot_begin_is_left_to_another_consumer() {
    let stage = Stage::with_orders(0..10).await;
    let release = Arc::new(Notify::new());
    let (began, go_on) = (Arc::new(Notify::new()), Arc::clone(&release));
    let begun = Arc::clone(&began);
    let slow = stage.consumer().handle(move |_: Order, _| {
        let (begun, go_on) = (Arc::clone(&begun), Arc::clone(&go_on));
        async move {
            begun.notify_one();
            go_on.notified().await;
        }
    });
    let slow = tokio::spawn(slow.run_for_count(1));
    began.notified().await;
    let quick = stage.consumer().handle(|_: Order, _| async {}).run_for_count(9).await.unwrap();
    assert_eq!(quick.acked, 9);
    release.notify_one();
    assert_eq!(slow.await.unwrap().unwrap().acked, 1);
}

#[tokio::test(start_paused = true)]
async fn never_more_are_held_than_prefetch_says() {
    let stage = Stage::with_orders(0..500).await;
    let most = Notes::new();
    let (noted, looking) = (most.clone(), stage.clone());
    let handler = move |_: Order, _| {
        let (noted, looking) = (noted.clone(), looking.clone());
        async move { noted.add(looking.status().await.leased) }
    };
    let consumer = stage.consumer().concurrency(4).prefetch(20).handle(handler);
    assert_eq!(consumer.run_until_empty().await.unwrap().acked, 500);
    let most = most.all().into_iter().max().unwrap();
    assert!((4..=20).contains(&most), "{most}");
}

#[tokio::test(start_paused = true)]
async fn a_consumer_with_all_it_may_hold_does_not_swallow_anothers_wake_up() {
    let stage = Stage::with_orders([1]).await;
    let full = ReceiveOptions { unsettled_max: 1, ..ReceiveOptions::default() };
    let mut one = stage.memory.receiver(&queue(), full).await.unwrap();
    let held = one.receive(1, Duration::ZERO).await.unwrap();
    let mut two = stage.memory.receiver(&queue(), ReceiveOptions::default()).await.unwrap();
    let sending = async {
        // Both wait by now; the full one first.
        tokio::time::sleep(Duration::from_secs(1)).await;
        stage.send(&order(2)).await;
    };
    let waiting = async {
        tokio::select! {
            biased;
            _ = one.receive(1, Duration::from_secs(1000)) => panic!("it holds all it may"),
            got = two.receive(1, Duration::from_secs(10)) => got.unwrap(),
        }
    };
    let began = Instant::now();
    let ((), got) = tokio::join!(sending, waiting);
    assert_eq!(began.elapsed().as_secs(), 1);
    assert_eq!(got.len(), 1);
    drop((held, got));
}

#[tokio::test]
async fn order_by_key_is_refused_where_the_transport_cannot_keep_it() {
    let transport = Arc::new(crate::faulty::Faulty::around(Stage::new().transport()).unordered());
    let name: QueueName = queue();
    let consumer =
        estafette_consumer::Consumer::new(transport, name).ordered_by_key().handle_any(|_| async {});
    let error = consumer.run().await.unwrap_err();
    assert_eq!(error.kind(), estafette_core::ErrorKind::Unsupported);
    assert!(error.report().contains("order=key"), "{}", error.report());
}
