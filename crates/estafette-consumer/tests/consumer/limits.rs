//! The ways a run ends by itself, each exactly where it says.

use std::{sync::Arc, time::Duration};

use estafette_consumer::{Consumer, StopReason};
use estafette_core::{Envelope, Outgoing, Retry, Transport};
use tokio::{sync::Notify, time::Instant};

use crate::stage::{Counter, Order, Stage, order, queue};

#[tokio::test(start_paused = true)]
async fn a_count_is_exact_and_leaves_the_rest_unspent() {
    for concurrency in [1, 3, 16] {
        let stage = Stage::with_orders(0..200).await;
        let calls = Counter::default();
        let seen = calls.clone();
        let handler = move |order: Order, _| {
            seen.raise();
            tokio::time::sleep(Duration::from_millis(order.id % 7))
        };
        let consumer = stage.consumer().concurrency(concurrency).handle(handler);
        let summary = consumer.run_for_count(101).await.unwrap();
        assert_eq!((summary.acked, summary.reason, calls.value()), (101, StopReason::Count, 101));
        let rest = stage.take(1000).await;
        assert_eq!(rest.len(), 99);
        assert!(rest.iter().all(|delivery| delivery.attempt() == 1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_count_counts_what_was_handled_whatever_became_of_it() {
    let stage = Stage::with_orders(0..10).await;
    let handler =
        |order: Order, _| async move { if order.id.is_multiple_of(2) { Err("odd only") } else { Ok(()) } };
    let consumer = stage.consumer().retry(Retry::never()).handle(handler);
    let summary = consumer.run_for_count(5).await.unwrap();
    assert_eq!((summary.acked, summary.dead), (2, 3));
}

#[tokio::test]
async fn a_count_of_nothing_ends_at_once() {
    let stage = Stage::with_orders([1]).await;
    let summary = stage.consumer().handle(|_: Order, _| async {}).run_for_count(0).await.unwrap();
    assert_eq!((summary.acked, summary.reason), (0, StopReason::Count));
}

#[tokio::test(start_paused = true)]
async fn a_run_for_a_time_ends_when_it_has_passed() {
    let stage = Stage::with_orders([1, 2]).await;
    let began = Instant::now();
    let summary =
        stage.consumer().handle(|_: Order, _| async {}).run_for(Duration::from_secs(5)).await.unwrap();
    assert_eq!((summary.acked, summary.reason), (2, StopReason::Time));
    assert_eq!(began.elapsed().as_secs(), 5);
}

#[tokio::test(start_paused = true)]
async fn until_empty_waits_for_retries_but_not_for_a_publishers_delay() {
    let stage = Stage::with_orders([1]).await;
    stage.send_later(&order(2), Duration::from_secs(3600)).await;
    let calls = Counter::default();
    let seen = calls.clone();
    let handler =
        move |_: Order, _| std::future::ready(if seen.raise() <= 3 { Err("not yet") } else { Ok(()) });
    let began = Instant::now();
    let consumer = stage.consumer().retry(Retry::fixed(Duration::from_secs(100))).handle(handler);
    let summary = consumer.run_until_empty().await.unwrap();
    assert_eq!((summary.acked, summary.retried, summary.reason), (1, 3, StopReason::Empty));
    assert_eq!(began.elapsed().as_secs(), 300);
    assert_eq!(stage.status().await.delayed, 1);
}

#[tokio::test(start_paused = true)]
async fn until_empty_waits_for_what_another_consumer_holds() {
    let stage = Stage::with_orders([1]).await;
    let mut held = stage.take(1).await;
    let release = async {
        tokio::time::sleep(Duration::from_secs(10)).await;
        held.pop().unwrap().release().await.unwrap();
    };
    let consumer = stage.consumer().handle(|_: Order, _| async {});
    let (summary, ()) = tokio::join!(consumer.run_until_empty(), release);
    assert_eq!(summary.unwrap().acked, 1);
}

#[tokio::test(start_paused = true)]
async fn until_empty_sees_an_empty_queue_at_once() {
    let stage = Stage::new();
    let began = Instant::now();
    let summary = stage.consumer().handle(|_: Order, _| async {}).run_until_empty().await.unwrap();
    assert_eq!(summary.reason, StopReason::Empty);
    assert!(began.elapsed() < Duration::from_millis(5), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn the_end_of_any_of_several_futures_stops_the_run() {
    for (first, second) in [(5, 500), (500, 5)] {
        let stage = Stage::new();
        let began = Instant::now();
        let after = |seconds| tokio::time::sleep(Duration::from_secs(seconds));
        let consumer = stage.consumer().handle(|_: Order, _| async {}).stop_when(after(first));
        let summary = consumer.run_until(after(second)).await.unwrap();
        assert_eq!((summary.reason, began.elapsed().as_secs()), (StopReason::Asked, 5));
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_consumer_stops_after_the_time_allowed() {
    let stage = Stage::with_orders([1]).await;
    stage.send_later(&order(2), Duration::from_secs(50)).await;
    let began = Instant::now();
    let handler = |_: Order, _| tokio::time::sleep(Duration::from_secs(100));
    let consumer = stage.consumer().idle_max(Duration::from_secs(60)).handle(handler);
    let summary = consumer.run().await.unwrap();
    assert_eq!((summary.acked, summary.reason), (2, StopReason::Idle));
    assert_eq!(began.elapsed().as_secs(), 260);
}

#[tokio::test(start_paused = true)]
async fn a_run_ends_after_as_many_failures_as_allowed() {
    let stage = Stage::with_orders(0..1000).await;
    let calls = Counter::default();
    let seen = calls.clone();
    let handler = move |_: Order, _| {
        seen.raise();
        std::future::ready(Err::<(), _>("no"))
    };
    let retry = Retry::fixed(Duration::from_secs(1));
    let summary = stage.consumer().failures_max(7).retry(retry).handle(handler).run().await.unwrap();
    assert_eq!((summary.retried, summary.reason, calls.value()), (7, StopReason::FailureLimit, 7));
}

#[tokio::test(start_paused = true)]
async fn a_run_ends_when_the_process_has_grown_too_large() {
    let stage = Stage::with_orders([1]).await;
    let consumer = || stage.consumer().handle(|_: Order, _| async {});
    let summary = consumer().memory_max(1).run().await.unwrap();
    assert_eq!((summary.acked, summary.reason), (0, StopReason::MemoryLimit));
    let summary = consumer().memory_max(u64::MAX).run_until_empty().await.unwrap();
    assert_eq!(summary.acked, 1);
}

#[tokio::test]
async fn a_large_backlog_of_quick_messages_is_worked_off() {
    for concurrency in [1, 4] {
        let stage = Stage::new();
        let batch: Vec<Outgoing> =
            (0..20_000).map(|id| Outgoing::send(queue(), Envelope::of(&order(id)).unwrap())).collect();
        assert!(stage.memory.publish(&batch).await.iter().all(Result::is_ok));
        let consumer = stage.consumer().concurrency(concurrency).handle(|_: Order, _| async {});
        assert_eq!(consumer.run_until_empty().await.unwrap().acked, 20_000);
    }
}

/// Orders of which each that is handled brings another; nothing ever waits.
async fn endless(began: Arc<Notify>) -> Consumer {
    let stage = Stage::with_orders(0..10).await;
    let again = stage.clone();
    stage.consumer().handle(move |order: Order, _| {
        let again = again.clone();
        began.notify_one();
        async move { again.send(&order).await }
    })
}

#[tokio::test]
async fn messages_without_end_leave_other_tasks_of_the_thread_their_turn() {
    let began = Arc::new(Notify::new());
    let consumer = endless(Arc::clone(&began)).await;
    let other = tokio::spawn(async move {
        for _ in 0..3 {
            began.notified().await;
        }
    });
    let summary = consumer.run_until(async move { other.await.unwrap() }).await.unwrap();
    assert!(summary.acked > 0);
}

#[tokio::test]
async fn messages_without_end_do_not_keep_timers_from_ending_a_run() {
    let consumer = endless(Arc::default()).await;
    let summary = consumer.run_for(Duration::from_millis(50)).await.unwrap();
    assert_eq!(summary.reason, StopReason::Time);
}
