//! When and how consumers run.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use estafette::{
    Context, DeadQuery, Error, Reason, Retry, Verdict,
    testkit::{Faults, TestKit, When},
};

use crate::{InvoiceSent, MINUTE, OrderCreated, billing, counting, failing, publish};

#[tokio::test]
async fn nothing_is_handled_before_it_is_asked_for() {
    let kit = TestKit::new();
    kit.consumer(billing).await.unwrap();
    publish(&kit, [1]).await;
    kit.assert_handled("billing", 0);
    kit.run_until_idle().await.unwrap();
    kit.assert_acked("billing", 1);
}

#[tokio::test]
async fn what_handlers_publish_is_handled_in_the_same_run() {
    let kit = TestKit::new();
    kit.consumer(billing).await.unwrap();
    kit.consumer(|bus| bus.consumer("archive").subscribe_to("#").handle_any(|_: Context| async {}))
        .await
        .unwrap();
    publish(&kit, [1, 2]).await;
    kit.run_until_idle().await.unwrap();
    kit.assert_acked("archive", 4);
    assert_eq!(kit.published::<InvoiceSent>(), [InvoiceSent { order: 1 }, InvoiceSent { order: 2 }]);
}

#[tokio::test]
async fn the_same_consumers_run_again_and_again() {
    let kit = TestKit::new();
    kit.consumer(billing).await.unwrap();
    for round in 1..=3 {
        publish(&kit, [round]).await;
        kit.run_until_idle().await.unwrap();
        kit.assert_acked("billing", round as usize);
    }
}

#[tokio::test]
async fn a_rejected_message_and_a_panic_are_told_apart() {
    let kit = TestKit::new();
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
    assert_eq!(kit.dead("choosy")[0].reason, Reason::Rejected);
}

#[tokio::test]
async fn a_request_is_answered_while_the_test_waits_for_it() {
    let kit = TestKit::new();
    kit.consumer(|bus| {
        bus.consumer("answering").subscribe::<OrderCreated>().reply(
            |order: OrderCreated, _: Context| async move { Ok::<_, Error>(InvoiceSent { order: order.id }) },
        )
    })
    .await
    .unwrap();
    let request = kit.bus().request::<_, InvoiceSent>(&OrderCreated { id: 4 }, MINUTE);
    let reply = kit.run_while(request).await.unwrap().unwrap();
    assert_eq!(reply, InvoiceSent { order: 4 });
    kit.assert_acked("answering", 1);
}

#[tokio::test]
async fn a_consumer_that_ends_by_its_own_limit_is_started_again() {
    let handled = Arc::default();
    let kit = TestKit::new();
    let build = counting(&handled);
    kit.consumer(move |bus| build(bus).count_max(2)).await.unwrap();
    publish(&kit, 0..7).await;
    kit.run_until_idle().await.unwrap();
    kit.assert_acked("counting", 7);
    assert_eq!(*handled.lock().unwrap(), (0..7).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_redriven_dead_letter_is_handled_in_the_next_run() {
    let failures = Arc::new(AtomicU32::new(3));
    let kit = TestKit::new();
    kit.consumer(failing(&failures)).await.unwrap();
    publish(&kit, [1]).await;
    kit.run_to_the_end().await.unwrap();
    kit.assert_dead("failing", 1);
    kit.bus().admin().redrive(&"failing".try_into().unwrap(), &DeadQuery::all()).await.unwrap();
    kit.assert_dead("failing", 0);
    kit.run_until_idle().await.unwrap();
    kit.assert_acked("failing", 1);
}

#[tokio::test]
async fn a_handler_that_takes_too_long_is_a_failed_attempt() {
    let kit = TestKit::new();
    kit.consumer(|bus| {
        bus.consumer("slow")
            .subscribe::<OrderCreated>()
            .time_limit(Duration::from_millis(20))
            .retry(Retry::never())
            .handle(|_: OrderCreated, _: Context| std::future::pending::<()>())
    })
    .await
    .unwrap();
    publish(&kit, [1]).await;
    kit.run_until_idle().await.unwrap();
    kit.assert_dead("slow", 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_is_written_down_when_handlers_run_side_by_side() {
    let faults = Faults::none().duplicate(When::always()).lose_acks(When::every(3));
    let kit = TestKit::with_faults(faults);
    kit.consumer(|bus| {
        let bus_of_handler = bus.clone();
        bus.consumer("billing").subscribe::<OrderCreated>().concurrency(8).handle(
            move |order: OrderCreated, _: Context| {
                let bus = bus_of_handler.clone();
                async move {
                    tokio::task::yield_now().await;
                    bus.publish(&InvoiceSent { order: order.id }).await.map(drop)
                }
            },
        )
    })
    .await
    .unwrap();
    kit.consumer(|bus| bus.consumer("archive").subscribe_to("invoice.*").handle_any(|_: Context| async {}))
        .await
        .unwrap();
    for round in 1..=20 {
        publish(&kit, 0..10).await;
        kit.run_until_idle().await.unwrap();
        kit.assert_acked("billing", round * 20);
        kit.assert_empty("billing");
        kit.assert_empty("archive");
        let invoices = kit.published::<InvoiceSent>().len();
        kit.assert_handled("billing", invoices);
        kit.assert_acked("archive", invoices * 2);
    }
}
