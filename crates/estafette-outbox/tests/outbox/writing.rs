//! What is written, what the relay makes of it.

use std::{collections::HashSet, sync::atomic::Ordering, time::Duration};

use estafette_core::{MessageId, Retry};
use estafette_outbox::{Inbox, Relay, RetryQuery};

use crate::support::{Base, Recorder, event, on_every_database};

on_every_database!(
    an_event_commits_or_rolls_back_with_its_order,
    everything_said_about_an_event_arrives,
    rows_of_a_subject_stay_in_order_through_failures,
    ten_relays_publish_nothing_twice,
    a_broker_that_is_away_costs_no_attempt,
    a_delayed_event_waits_and_holds_up_nothing,
    retry_publishes_again_with_the_same_ids,
    cleaning_goes_by_age,
    once_is_once,
    a_running_relay_is_woken,
);

async fn an_event_commits_or_rolls_back_with_its_order(base: Base) {
    let mut link = base.link().await;
    for (id, end) in [(1, "COMMIT"), (2, "ROLLBACK"), (3, "COMMIT")] {
        link.run("BEGIN").await;
        link.run(&format!("INSERT INTO orders (id) VALUES ({id})")).await;
        event(id, 0).publish(link.executor()).await.unwrap();
        link.run(end).await;
    }
    let recorder = Recorder::new();
    let summary = Relay::new(base.store.clone(), recorder.clone()).run_until_empty().await.unwrap();
    assert_eq!(summary.sent, 2);
    assert_eq!(recorder.bodies(), ["1:0", "3:0"]);
    assert_eq!(link.number("SELECT count(*) FROM orders").await, 2);
}

async fn everything_said_about_an_event_arrives(base: Base) {
    let entry = event(7, 1).header("tenant", "a ü 'b'").key("k").exchange("shop");
    base.write([entry]).await;
    let recorder = Recorder::new();
    Relay::new(base.store.clone(), recorder.clone()).run_until_empty().await.unwrap();
    let published = recorder.published.lock().unwrap();
    let envelope = &published[0];
    assert_eq!(&*envelope.source, "tests");
    assert_eq!(envelope.subject.as_deref(), Some("7"));
    assert_eq!(envelope.partition_key.as_deref(), Some("k"));
    assert_eq!(envelope.headers.get("tenant"), Some("a ü 'b'"));
    assert_eq!(envelope.headers.get("exchange"), Some("shop"));
}

async fn rows_of_a_subject_stay_in_order_through_failures(base: Base) {
    let events = (0..4).flat_map(|number| (1..4).map(move |order| event(order, number)));
    base.write(events).await;
    let recorder = Recorder::new();
    recorder.refuse(&["2:1"]);
    let relay = || Relay::new(base.store.clone(), recorder.clone());
    let failing = Retry::fixed(Duration::ZERO).attempts_max(3);
    let summary = relay().retry(failing).run_until_empty().await.unwrap();
    assert_eq!((summary.sent, summary.retried, summary.failed), (9, 2, 1), "{:?}", recorder.bodies());
    let status = base.store.status().await.unwrap();
    assert_eq!((status.waiting, status.failed, status.sent), (2, 1, 9));
    assert!(status.last_error.unwrap().contains("refused"));

    recorder.refuse(&[]);
    assert_eq!(relay().run_until_empty().await.unwrap().sent, 0, "a failed row blocks its subject");
    let query =
        RetryQuery { failed: true, topic: Some("order.*".try_into().unwrap()), ..RetryQuery::default() };
    assert_eq!(base.store.retry(&query).await.unwrap(), 1);
    assert_eq!(relay().run_until_empty().await.unwrap().sent, 3);
    for order in 1..4 {
        let of_order: Vec<String> =
            recorder.bodies().into_iter().filter(|body| body.starts_with(&format!("{order}:"))).collect();
        assert_eq!(of_order, (0..4).map(|number| format!("{order}:{number}")).collect::<Vec<_>>());
    }
}

async fn ten_relays_publish_nothing_twice(base: Base) {
    const SUBJECTS: u32 = 40;
    const EACH: u32 = 15;
    let recorder = Recorder::new();
    let (stop, stopped) = tokio::sync::watch::channel(());
    let relays: Vec<_> = (0..10)
        .map(|_| {
            let mut stopped = stopped.clone();
            let relay =
                Relay::new(base.store.clone(), recorder.clone()).batch(7).poll(Duration::from_millis(5));
            tokio::spawn(relay.run_until(async move {
                // Either way it is over.
                drop(stopped.changed().await);
            }))
        })
        .collect();
    for number in 0..EACH {
        base.write((0..SUBJECTS).map(|order| event(order, number))).await;
    }
    until("everything was published", async || {
        base.store.status().await.unwrap().sent == u64::from(SUBJECTS * EACH)
    })
    .await;
    stop.send(()).unwrap();
    for relay in relays {
        relay.await.unwrap().unwrap();
    }
    let bodies = recorder.bodies();
    assert_eq!(bodies.len(), (SUBJECTS * EACH) as usize);
    assert_eq!(bodies.iter().collect::<HashSet<_>>().len(), bodies.len());
    for order in 0..SUBJECTS {
        let prefix = format!("{order}:");
        let numbers: Vec<u32> = bodies
            .iter()
            .filter_map(|body| body.strip_prefix(&prefix))
            .map(|number| number.parse().unwrap())
            .collect();
        assert!(numbers.is_sorted(), "order {order}: {numbers:?}");
    }
}

async fn a_broker_that_is_away_costs_no_attempt(base: Base) {
    let recorder = Recorder::new();
    recorder.is_away.store(true, Ordering::Relaxed);
    base.write((0..20).map(|order| event(order, 0))).await;
    let relay = Relay::new(base.store.clone(), recorder.clone()).retry(Retry::never());
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn(relay.run_until(async move { drop(stopped.await) }));
    until("the outbox says why", async || base.store.status().await.unwrap().last_error.is_some()).await;
    recorder.is_away.store(false, Ordering::Relaxed);
    until("it caught up", async || base.store.status().await.unwrap().sent == 20).await;
    drop(stop);
    let summary = running.await.unwrap().unwrap();
    assert_eq!((summary.sent, summary.failed), (20, 0));
}

async fn a_delayed_event_waits_and_holds_up_nothing(base: Base) {
    base.write([event(1, 0).delay(Duration::from_secs(3600)), event(1, 1)]).await;
    let recorder = Recorder::new();
    Relay::new(base.store.clone(), recorder.clone()).run_until_empty().await.unwrap();
    assert_eq!(recorder.bodies(), ["1:1"]);
    let status = base.store.status().await.unwrap();
    assert_eq!((status.waiting, status.delayed), (1, 1));
    assert_eq!(status.lag, Duration::ZERO);
}

async fn retry_publishes_again_with_the_same_ids(base: Base) {
    base.write((0..3).map(|number| event(1, number))).await;
    let recorder = Recorder::new();
    Relay::new(base.store.clone(), recorder.clone()).run_until_empty().await.unwrap();
    let later = RetryQuery { since: Some(estafette_core::Timestamp::now()), ..RetryQuery::default() };
    assert_eq!(base.store.retry(&later).await.unwrap(), 0);
    assert_eq!(base.store.retry(&RetryQuery::default()).await.unwrap(), 3);
    Relay::new(base.store.clone(), recorder.clone()).run_until_empty().await.unwrap();
    let ids: Vec<MessageId> =
        recorder.published.lock().unwrap().iter().map(|envelope| envelope.id.clone()).collect();
    assert_eq!(ids[..3], ids[3..]);
}

async fn cleaning_goes_by_age(base: Base) {
    base.write((0..1500).map(|order| event(order, 0))).await;
    let recorder = Recorder::new();
    Relay::new(base.store.clone(), recorder).batch(1000).run_until_empty().await.unwrap();
    base.write([event(1, 1)]).await;
    assert_eq!(base.store.clean(Duration::from_secs(3600)).await.unwrap(), 0);
    assert_eq!(base.store.clean(Duration::ZERO).await.unwrap(), 1500);
    let status = base.store.status().await.unwrap();
    assert_eq!((status.waiting, status.sent), (1, 0));
}

async fn once_is_once(base: Base) {
    let inbox = Inbox::new("billing".try_into().unwrap());
    let other = Inbox::new("mail".try_into().unwrap());
    let id = MessageId::new();
    let mut link = base.link().await;
    link.run("BEGIN").await;
    assert!(inbox.once(link.executor(), &id).await.unwrap());
    link.run("ROLLBACK").await;
    link.run("BEGIN").await;
    assert!(inbox.once(link.executor(), &id).await.unwrap(), "what was rolled back did not happen");
    assert!(other.once(link.executor(), &id).await.unwrap());
    link.run("COMMIT").await;
    assert!(!inbox.once(link.executor(), &id).await.unwrap());
    assert_eq!(base.store.clean_inbox(Duration::from_secs(3600)).await.unwrap(), 0);
    assert_eq!(base.store.clean_inbox(Duration::ZERO).await.unwrap(), 2);
    assert!(inbox.once(link.executor(), &id).await.unwrap());
}

async fn a_running_relay_is_woken(base: Base) {
    let recorder = Recorder::new();
    let outbox = estafette_outbox::Outbox::new("tests");
    let relay =
        Relay::new(base.store.clone(), recorder.clone()).poll(Duration::from_secs(3600)).wake(outbox.wake());
    let (ready, is_ready) = tokio::sync::oneshot::channel();
    let relay = relay.when_ready(move || ready.send(()).unwrap_or_default());
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn(relay.run_until(async move { drop(stopped.await) }));
    is_ready.await.unwrap();
    base.write([event(1, 0)]).await;
    if base.store.dialect() != estafette_outbox::Dialect::Postgres {
        outbox.committed();
    }
    until("it came", async || recorder.bodies() == ["1:0"]).await;
    drop(stop);
    running.await.unwrap().unwrap();
}

/// Waits until `condition` holds, half a minute at most.
async fn until(what: &str, condition: impl AsyncFn() -> bool) {
    let waiting = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(30), waiting).await.is_ok(), "not in time: {what}");
}
