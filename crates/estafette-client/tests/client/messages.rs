//! Consuming: from every node, through broken connections, no faster than the program.

use estafette_client::StreamExt as _;
use estafette_gateway::api::Node;

use crate::stage::{Stage, next, text, within};

#[tokio::test]
async fn a_message_is_consumed_and_answered() {
    let stage = Stage::new().await;
    let client = stage.client().await;
    let mut messages = client.consume(["foo"]);
    let mut user = stage.user().await;
    user.say("hello").await;
    let message = next(&mut messages).await;
    assert_eq!((text(&message).as_str(), message.queue(), &*message.node().id), ("hello", "foo", "n1"));
    client.send(message.connection().unwrap(), "received: hello").await.unwrap();
    assert_eq!(user.hear().await, "received: hello");
}

#[tokio::test]
async fn nodes_that_join_are_consumed_and_nodes_that_leave_are_not() {
    let (one, two) = (Stage::new().await, Stage::with("n2", 2, Vec::new()).await);
    let client = one.client().await;
    let mut messages = client.consume(["foo"]);
    one.until(|stage| stage.depth().1 == 1).await;
    assert_eq!(two.depth(), (0, 0));

    let joined = Node { id: "n2".into(), address: two.management().to_string() };
    one.handle.nodes().set_others(vec![joined]);
    two.until(|stage| stage.depth().1 == 1).await;
    two.user().await.say("from two").await;
    assert_eq!(next(&mut messages).await.node().id, "n2");
    one.user().await.say("from one").await;
    assert_eq!(next(&mut messages).await.node().id, "n1");
    assert_eq!(client.nodes().len(), 2);

    one.handle.nodes().set_others(Vec::new());
    two.until(|stage| stage.depth().1 == 0).await;
}

#[tokio::test]
async fn a_broken_connection_is_made_again() {
    let mut stage = Stage::new().await;
    let client = stage.client().await;
    let mut messages = client.consume(["foo"]);
    let mut user = stage.user().await;
    user.say("before").await;
    assert_eq!(text(&next(&mut messages).await), "before");
    stage.stop_api().await;
    assert!(within(messages.next()).await.unwrap().is_err());
    user.say("meanwhile").await;
    stage.start_api().await;
    let message = next(&mut messages).await;
    assert_eq!(text(&message), "meanwhile");
    client.send(message.connection().unwrap(), "still here").await.unwrap();
    assert_eq!(user.hear().await, "still here");
}

#[tokio::test]
async fn an_unacknowledged_message_comes_again() {
    let stage = Stage::new().await;
    let client = stage.client().await;
    let mut user = stage.user().await;
    let mut messages = client.consume_acknowledging(["foo"]);
    user.say("one").await;
    user.say("two").await;
    let (one, two) = (next(&mut messages).await, next(&mut messages).await);
    assert_eq!((text(&one), text(&two)), ("one".into(), "two".into()));
    one.acknowledge().unwrap();
    // What is acknowledged after the last is settled as well: the order is kept.
    stage.until(|stage| stage.gateway.hub().queues().totals().consumed == 2).await;
    messages.stop();
    while within(messages.next()).await.is_some() {}
    let mut messages = client.consume_acknowledging(["foo"]);
    let again = next(&mut messages).await;
    assert_eq!(text(&again), "two");
    again.acknowledge().unwrap();
}

#[tokio::test]
async fn a_stopped_consumer_yields_what_it_took_and_ends() {
    let stage = Stage::new().await;
    let client = stage.client().await;
    let mut messages = client.consume(["foo"]);
    let mut user = stage.user().await;
    for number in 0..10 {
        user.say(&number.to_string()).await;
    }
    assert_eq!(text(&next(&mut messages).await), "0");
    messages.stop();
    let mut seen = 1;
    while let Some(message) = within(messages.next()).await {
        assert_eq!(text(&message.unwrap()), seen.to_string());
        seen += 1;
    }
    stage.until(|stage| stage.depth().1 == 0).await;
    // None is lost: what it did not take is in the queue.
    stage.until(|stage| stage.depth().0 == 10 - seen).await;
}

#[tokio::test]
async fn a_program_that_does_not_read_leaves_messages_at_the_gateway() {
    let stage = Stage::new().await;
    let client = stage.builder().messages_max(4).build().await.unwrap();
    let mut messages = client.consume(["foo"]);
    stage.until(|stage| stage.depth().1 == 1).await;
    let queues = stage.gateway.hub().queues();
    let filler = "x".repeat(32 << 10);
    for number in 0..1_000 {
        let data = serde_json::json!({"frame": {"data": number.to_string()}, "filler": filler});
        let data = serde_json::value::to_raw_value(&data).unwrap();
        let message = estafette_gateway::queues::QueueMessage {
            node: "n1".into(),
            client_id: None,
            queue: "foo".into(),
            data,
        };
        queues.push(message).unwrap();
    }
    stage.until(|stage| stage.depth().0 < 1_000).await;
    assert!(stage.depth().0 > 100);
    for number in 0..1_000 {
        assert_eq!(text(&next(&mut messages).await), number.to_string());
    }
}
