//! Topics by a list in the URL.

use estafette_core::{ErrorKind, Pattern, Routing};

use super::*;

fn pattern(text: &str) -> Pattern {
    Pattern::try_from(text).unwrap()
}

#[tokio::test]
async fn a_topic_reaches_the_queues_of_the_list() {
    let (billing, audit) = (unique(), unique());
    let list = format!("&subscribe={billing}:order.*,{audit}:%23,{audit}:order.created").replace("%23", "#");
    let place = place(&list).await;
    place
        .transport
        .declare(&QueueSpec::durable(billing.clone()).subscribe(pattern("order.*")))
        .await
        .unwrap();
    let published = place.transport.publish(&[Outgoing::publish(Envelope::new(TOPIC, "1".into()))]).await;
    assert_eq!(published[0].as_ref().unwrap().routing, Routing::Queues(2));
    let other = Envelope::new(Topic::from_static("user.created"), "2".into());
    let published = place.transport.publish(&[Outgoing::publish(other)]).await;
    assert_eq!(published[0].as_ref().unwrap().routing, Routing::Queues(1));
    for (queue, count) in [(&billing, 1), (&audit, 2)] {
        let mut receiver = place.transport.receiver(queue, ReceiveOptions::default()).await.unwrap();
        for _ in 0..count {
            take_one(&mut receiver).await.ack().await.unwrap();
        }
        assert!(receiver.receive(1, Duration::ZERO).await.unwrap().is_empty());
        receiver.close().await.unwrap();
        place.transport.admin().delete(queue).await.unwrap();
    }
}

#[tokio::test]
async fn what_the_list_does_not_say_is_refused_with_the_setting_to_change() {
    let place = place("").await;
    let spec = QueueSpec::durable(place.queue.clone()).subscribe(pattern("order.*"));
    let error = place.transport.declare(&spec).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.report().contains(&format!("{}:order.*", place.queue)), "{}", error.report());
    let published = place.transport.publish(&[Outgoing::publish(Envelope::new(TOPIC, "1".into()))]).await;
    let error = published[0].as_ref().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.report().contains("subscribe="), "{}", error.report());
}

#[tokio::test]
async fn a_topic_nobody_takes_is_an_error_when_a_queue_is_required() {
    let queue = unique();
    let place = place(&format!("&subscribe={queue}:user.*")).await;
    let mut outgoing = Outgoing::publish(Envelope::new(TOPIC, "1".into()));
    let published = place.transport.publish(std::slice::from_ref(&outgoing)).await;
    assert_eq!(published[0].as_ref().unwrap().routing, Routing::Unrouted);
    outgoing.require_queue = true;
    let published = place.transport.publish(&[outgoing]).await;
    assert_eq!(published[0].as_ref().unwrap_err().kind(), ErrorKind::Unroutable);
}
