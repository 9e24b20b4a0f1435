//! Queues: who gets a message, and what happens when there are too many.

use estafette_gateway::queues::{QueueFull, QueueLimits, QueueMessage, Queues};
use serde_json::value::RawValue;

fn message(queue: &str, number: u64) -> QueueMessage {
    QueueMessage {
        node: "n1".into(),
        client_id: None,
        queue: queue.into(),
        data: RawValue::from_string(format!("{{\"n\":{number}}}")).unwrap(),
    }
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[tokio::test]
async fn a_message_goes_to_one_consumer_in_order() {
    let queues = Queues::new(QueueLimits::default());
    let mut first = queues.register(&names(&["a", "b"])).unwrap();
    for n in 0..4 {
        assert_eq!(queues.push(message("a", n)).unwrap() as u64, n + 1);
    }
    let mut second = queues.register(&names(&["a"])).unwrap();
    let mut seen = Vec::new();
    for n in 0..4 {
        let consumer = if n % 2 == 0 { &mut first } else { &mut second };
        seen.push(consumer.next().await.message.data.get().to_owned());
    }
    assert_eq!(seen, ["{\"n\":0}", "{\"n\":1}", "{\"n\":2}", "{\"n\":3}"]);
}

#[tokio::test]
async fn a_waiting_consumer_is_woken_even_after_a_dropped_wait() {
    let queues = Queues::new(QueueLimits::default());
    let mut gone = queues.register(&names(&["a"])).unwrap();
    let mut stays = queues.register(&names(&["a"])).unwrap();
    tokio::select! {
        biased;
        _ = gone.next() => unreachable!("nothing was pushed"),
        () = std::future::ready(()) => {}
    }
    let waiting = tokio::spawn(async move { stays.next().await.message.queue.clone() });
    tokio::task::yield_now().await;
    queues.push(message("a", 1)).unwrap();
    drop(gone);
    assert_eq!(waiting.await.unwrap(), "a");
}

#[tokio::test]
async fn what_was_not_acknowledged_comes_again_in_order() {
    let queues = Queues::new(QueueLimits::default());
    for n in 0..3 {
        queues.push(message("a", n)).unwrap();
    }
    let mut first = queues.register_acknowledging(&names(&["a"])).unwrap();
    let tags = [first.next().await.tag, first.next().await.tag];
    assert!(first.acknowledge(tags[0]));
    assert!(!first.acknowledge(tags[0]));
    drop(first);
    let mut second = queues.register(&names(&["a"])).unwrap();
    assert_eq!(second.next().await.message.data.get(), "{\"n\":1}");
    assert_eq!(second.next().await.message.data.get(), "{\"n\":2}");
    assert_eq!(queues.totals().returned, 1);
}

#[test]
fn every_limit_is_an_error_and_is_counted() {
    let queues =
        Queues::new(QueueLimits { messages_max: 2, queues_max: 2, bytes_max: 30, unacknowledged_max: 1 });
    queues.push(message("a", 1)).unwrap();
    queues.push(message("a", 2)).unwrap();
    assert_eq!(queues.push(message("a", 3)), Err(QueueFull::Messages));
    queues.push(message("b", 1)).unwrap();
    assert_eq!(queues.push(message("c", 1)), Err(QueueFull::Queues));
    assert_eq!(queues.push(message("b", 10_000_000)), Err(QueueFull::Bytes));
    assert_eq!((queues.totals().pushed, queues.totals().refused), (3, 3));
    assert!(queues.register(&names(&["c"])).is_err());
}

#[test]
fn an_empty_queue_without_consumers_is_forgotten() {
    let queues = Queues::new(QueueLimits::default());
    let consumption = queues.register(&names(&["a", "a"])).unwrap();
    assert_eq!(queues.depths().len(), 1);
    drop(consumption);
    assert!(queues.depths().is_empty());
}
