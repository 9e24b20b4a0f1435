//! Request and reply.

use std::{sync::Arc, time::Duration};

use estafette_consumer::{Context, Requester};
use estafette_core::{Admin, Envelope, ErrorKind, Outgoing, Transport};
use tokio::{sync::Notify, task::JoinHandle, time::Instant};

use crate::stage::{Invoice, Order, Stage, order, queue};

const LIMIT: Duration = Duration::from_secs(5);

/// A consumer that answers orders with an invoice, and an odd one with an error.
async fn answering(stage: &Stage, takes: Duration) -> JoinHandle<()> {
    let consumer = stage.consumer().subscribe::<Order>().concurrency(4).reply(
        move |order: Order, _: Context| async move {
            tokio::time::sleep(takes).await;
            if order.id.is_multiple_of(2) {
                Ok(Invoice { number: order.id * 10 })
            } else {
                Err("odd orders are refused")
            }
        },
    );
    let task = tokio::spawn(async move { assert!(consumer.run().await.is_ok()) });
    while stage.memory.admin().queue(&queue()).await.is_err() {
        tokio::task::yield_now().await;
    }
    task
}

fn request(id: u64) -> Outgoing {
    Outgoing::publish(Envelope::of(&order(id)).unwrap())
}

#[tokio::test(start_paused = true)]
async fn the_reply_comes_back_to_whoever_asked() {
    let stage = Stage::new();
    answering(&stage, Duration::from_secs(1)).await;
    let requester = Requester::new(stage.transport());
    let ask = |id| {
        let requester = requester.clone();
        async move { requester.request::<Invoice>(request(id), LIMIT).await.unwrap().number }
    };
    let began = Instant::now();
    assert_eq!(tokio::join!(ask(2), ask(4), ask(6), ask(8)), (20, 40, 60, 80));
    assert_eq!(began.elapsed().as_secs(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_handlers_error_reaches_whoever_asked() {
    let stage = Stage::new();
    answering(&stage, Duration::ZERO).await;
    let error = Requester::new(stage.transport()).request::<Invoice>(request(1), LIMIT).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Engine);
    assert!(error.report().contains("odd orders are refused"), "{}", error.report());
    assert!(stage.dead().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_request_that_does_not_decode_is_refused_in_words() {
    let stage = Stage::new();
    answering(&stage, Duration::ZERO).await;
    let mut bad = request(2);
    bad.envelope_mut().body = "{}".into();
    let error = Requester::new(stage.transport()).request::<Invoice>(bad, LIMIT).await.unwrap_err();
    assert!(error.report().contains("does not decode"), "{}", error.report());
}

#[tokio::test(start_paused = true)]
async fn a_reply_that_comes_too_late_is_dropped_and_troubles_nobody() {
    let stage = Stage::new();
    answering(&stage, 2 * LIMIT).await;
    let requester = Requester::new(stage.transport());
    let began = Instant::now();
    let error = requester.request::<Invoice>(request(2), LIMIT).await.unwrap_err();
    assert_eq!((error.kind(), began.elapsed().as_secs()), (ErrorKind::TimedOut, 5));
    let later = requester.request::<Invoice>(request(4), 4 * LIMIT).await.unwrap();
    assert_eq!(later.number, 40);
    let held: u64 = stage.memory.admin().queues().await.unwrap().iter().map(|queue| queue.ready).sum();
    assert_eq!(held, 0);
}

#[tokio::test(start_paused = true)]
async fn a_request_nobody_takes_fails_at_once() {
    let stage = Stage::new();
    let requester = Requester::new(stage.transport());
    let error = requester.request::<Invoice>(request(2), LIMIT).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unroutable);
}

#[tokio::test(start_paused = true)]
async fn a_request_nobody_begins_in_time_expires() {
    let stage = Stage::new();
    let consumer =
        || stage.consumer().subscribe::<Order>().reply(|_: Order, _| async { Ok::<_, &str>(order(1)) });
    consumer().run_until_empty().await.unwrap();
    let requester = Requester::new(stage.transport());
    let error = requester.request::<Order>(request(2), LIMIT).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    // The transport's clock and the wall clock, which the request's time is from, are not the same while time is paused.
    tokio::time::sleep(LIMIT).await;
    assert_eq!(consumer().run_until_empty().await.unwrap().acked, 0);
    assert_eq!(stage.dead_letter().await.reason, estafette_core::Reason::Expired);
}

#[tokio::test(start_paused = true)]
async fn a_message_nobody_awaits_the_answer_to_is_just_handled() {
    let stage = Stage::with_orders([2]).await;
    let consumer = stage.consumer().reply(|_: Order, _| async { Ok::<_, &str>(Invoice { number: 1 }) });
    assert_eq!(consumer.run_until_empty().await.unwrap().acked, 1);
}

#[tokio::test(start_paused = true)]
async fn an_answer_to_somebody_gone_is_dropped() {
    let stage = Stage::new();
    let begun = Arc::new(Notify::new());
    let began = Arc::clone(&begun);
    let consumer = stage.consumer().subscribe::<Order>().reply(move |_: Order, _| {
        began.notify_one();
        async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            Ok::<_, &str>(Invoice { number: 1 })
        }
    });
    let running = tokio::spawn(consumer.run_for_count(1));
    while stage.memory.admin().queue(&queue()).await.is_err() {
        tokio::task::yield_now().await;
    }
    let requester = Requester::new(stage.transport());
    let asking = tokio::spawn(async move { requester.request::<Invoice>(request(2), LIMIT).await });
    begun.notified().await;
    asking.abort();
    assert!(asking.await.unwrap_err().is_cancelled());
    assert_eq!(running.await.unwrap().unwrap().acked, 1);
}

#[tokio::test(start_paused = true)]
async fn the_queue_for_replies_goes_away_with_the_last_requester() {
    let stage = Stage::new();
    answering(&stage, Duration::ZERO).await;
    let requester = Requester::new(stage.transport());
    let other = requester.clone();
    requester.request::<Invoice>(request(2), LIMIT).await.unwrap();
    drop(requester);
    other.request::<Invoice>(request(2), LIMIT).await.unwrap();
    assert_eq!(stage.memory.admin().queues().await.unwrap().len(), 2);
    drop(other);
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(stage.memory.admin().queues().await.unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn requests_go_on_after_their_queue_for_replies_was_deleted() {
    let stage = Stage::new();
    answering(&stage, Duration::ZERO).await;
    let requester = Requester::new(stage.transport());
    requester.request::<Invoice>(request(2), LIMIT).await.unwrap();
    let admin: &dyn Admin = stage.memory.admin();
    for found in admin.queues().await.unwrap() {
        if found.name != queue() {
            admin.delete(&found.name).await.unwrap();
        }
    }
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(requester.request::<Invoice>(request(4), LIMIT).await.unwrap().number, 40);
}
