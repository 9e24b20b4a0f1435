//! What a test is told when something is not as expected.

use std::time::Duration;

use estafette::{
    Context, ErrorKind,
    testkit::{Faults, TestKit, When},
};

use crate::{OrderCreated, billing, publish};

#[tokio::test]
#[should_panic(
    expected = "deliveries of billing acked: 1, not 2\nwhat happened:\n  +0s  published   order.created {\"id\":1}    into 1 queue"
)]
async fn a_failed_assertion_tells_what_happened() {
    let kit = TestKit::new();
    kit.consumer(billing).await.unwrap();
    publish(&kit, [1]).await;
    kit.run_until_idle().await.unwrap();
    kit.assert_acked("billing", 2);
}

#[tokio::test]
async fn consumers_that_never_rest_are_reported() {
    let kit = TestKit::new().patience(Duration::from_millis(200));
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
    let kit = TestKit::new();
    let error = kit.consumer(|bus| bus.consumer("idle")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.report().contains("the consumer of idle"), "{}", error.report());
}

#[tokio::test]
#[should_panic(expected = "there is no queue biling; there are: billing")]
async fn a_misspelt_queue_is_no_queue_without_messages() {
    let kit = TestKit::new();
    kit.consumer(billing).await.unwrap();
    kit.assert_dead("biling", 0);
}

#[tokio::test]
async fn the_story_tells_what_faults_did_and_what_nobody_took() {
    let kit = TestKit::with_faults(Faults::none().duplicate(When::always()).lose_acks(When::nth(1)));
    kit.consumer(billing).await.unwrap();
    publish(&kit, [1]).await;
    kit.run_until_idle().await.unwrap();
    let story = kit.story();
    for line in
        ["duplicated by a fault", "acked, but a fault lost the ack", "no queue takes it", "billing #2"]
    {
        assert!(story.contains(line), "{line}\n{story}");
    }
}
