//! Sending, asking, and what comes back.

use std::{cell::Cell, time::Duration};

use estafette_core::ErrorKind;
use estafette_workers::{Counts, ListenerError, To};
use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use crate::stage::{Stage, eventually};

const SECOND: Duration = Duration::from_secs(1);

/// The notes of the workers, sorted, once there are `count` of them.
async fn notes(stage: &Stage, count: usize) -> Vec<String> {
    eventually("the notes are written", async || {
        let mut notes: Vec<String> = stage.text("notes").lines().map(str::to_owned).collect();
        notes.sort();
        (notes.len() >= count).then_some(notes)
    })
    .await
}

#[tokio::test]
async fn an_outsider_sends_to_all_to_one_to_several_to_any_and_to_a_named_process() {
    let (stage, group) = Stage::up("chat").await;
    assert_eq!(group.send("note", &"all", To::All).await.unwrap(), 4);
    assert_eq!(group.send("note", &"one", To::One(2)).await.unwrap(), 1);
    assert_eq!(group.send("note", &"many", To::Many(&[0, 3])).await.unwrap(), 2);
    assert_eq!(group.send("note", &"any", To::Any).await.unwrap(), 1);
    assert_eq!(group.send("note", &"named", To::Process("scheduler")).await.unwrap(), 1);
    let notes = notes(&stage, 9).await;
    let count = |text: &str| notes.iter().filter(|note| note.ends_with(&format!(" {text}"))).count();
    assert_eq!([count("all"), count("one"), count("many"), count("any"), count("named")], [4, 1, 2, 1, 1]);
    let outside = format!("outside-{}", std::process::id());
    assert!(notes.contains(&format!("2 {outside} one")), "{notes:?}");
    assert!(notes.contains(&format!("scheduler {outside} named")), "{notes:?}");
}

/// Counts how often it is encoded.
#[derive(Default)]
struct Counted(Cell<u32>);

impl Serialize for Counted {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.set(self.0.get() + 1);
        serializer.serialize_str("counted")
    }
}

#[tokio::test]
async fn a_message_to_all_is_encoded_once() {
    let (stage, group) = Stage::up("chat").await;
    let message = Counted::default();
    assert_eq!(group.send("note", &message, To::All).await.unwrap(), 4);
    assert_eq!(message.0.get(), 1);
    assert!(notes(&stage, 4).await.iter().all(|note| note.ends_with(" counted")));
}

#[tokio::test]
async fn a_worker_sends_to_all_with_itself_and_to_others_without() {
    let (stage, group) = Stage::up("chat").await;
    let tell =
        async |to: &str| -> String { group.request("tell", &(to, to), To::One(1), SECOND).await.unwrap() };
    assert_eq!(tell("all").await, "4");
    assert_eq!(tell("others").await, "3");
    assert_eq!(tell("scheduler").await, "1");
    assert_eq!(tell("any").await, "1");
    let notes = notes(&stage, 9).await;
    let expected = [
        "0 1 all",
        "0 1 others",
        "1 1 all",
        "2 1 all",
        "2 1 others",
        "3 1 all",
        "3 1 others",
        "scheduler 1 scheduler",
    ];
    for note in expected {
        assert!(notes.iter().any(|found| found == note), "{note} in {notes:?}");
    }
    assert!(!notes.contains(&"1 1 any".to_owned()), "any is another, as long as there is one");
}

#[tokio::test]
async fn a_request_gets_the_reply_of_the_listener_and_the_listener_knows_who_asks() {
    let (_stage, group) = Stage::up("chat").await;
    let reply: Value = group.request("ask", &3, To::One(1), SECOND).await.unwrap();
    assert_eq!(reply, json!({ "data": "asked", "from": "1", "here": "3" }));
    let reply: Value = group.request("ask", &1, To::One(1), SECOND).await.unwrap();
    assert_eq!(reply, json!({ "data": "asked", "from": "1", "here": "1" }), "to itself");
    let replies = group.request_all::<_, Value>("echo", &1, To::All, SECOND).await.unwrap();
    let from: Vec<String> = replies
        .iter()
        .map(|(address, reply)| {
            assert_eq!(reply.as_ref().unwrap()["here"], address.to_string());
            address.to_string()
        })
        .collect();
    assert_eq!(from, ["0", "1", "2", "3"]);
}

#[tokio::test]
async fn requests_fail_with_what_went_wrong() {
    let (_stage, group) = Stage::up("chat").await;
    let ask = async |action: &str, data: Value, to: To<'_>| {
        group.request::<_, Value>(action, &data, to, 10 * SECOND).await.unwrap_err()
    };
    let error = ask("echo", Value::Null, To::One(4)).await;
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.report().contains("no such worker: 4"), "{}", error.report());
    let error = ask("echo", Value::Null, To::Process("nobody")).await;
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let error = ask("unheard-of", Value::Null, To::One(0)).await;
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let error = ask("fail", json!("out of paper"), To::One(0)).await;
    assert_eq!(error.kind(), ErrorKind::Engine);
    let source = std::error::Error::source(&error).unwrap().downcast_ref::<ListenerError>().unwrap();
    assert_eq!(source.message, "out of paper");
    assert_eq!(ask("refuse", Value::Null, To::One(0)).await.kind(), ErrorKind::Full, "kinds travel");
    assert_eq!(ask("panic", Value::Null, To::One(0)).await.kind(), ErrorKind::Engine);
    assert_eq!(ask("fail", json!(5), To::One(0)).await.kind(), ErrorKind::Undecodable);
    assert_eq!(ask("echo", Value::Null, To::All).await.kind(), ErrorKind::InvalidInput);
    assert_eq!(ask("long", json!(17 << 20), To::One(0)).await.kind(), ErrorKind::TooLarge);
    let reply: Value = group.request("long", &(5 << 20), To::One(0), 5 * SECOND).await.unwrap();
    assert_eq!(reply.as_str().map(str::len), Some(5 << 20));
    let reply: Value = group.request("who", &(), To::Supervisor, SECOND).await.unwrap();
    assert_eq!(reply, "supervisor");
    let reply: Value = group.request("echo", &"still here", To::One(0), SECOND).await.unwrap();
    assert_eq!(reply["data"], "still here");
}

#[tokio::test]
async fn a_late_reply_is_dropped_and_counted_and_others_do_not_wait_for_it() {
    let (_stage, group) = Stage::up("chat").await;
    let outcome: Result<u64, String> = group.request("hush", &(1, 400), To::One(0), SECOND).await.unwrap();
    assert_eq!(outcome, Err("timed out".to_owned()));
    // While worker 1 naps, it answers others.
    let reply: Value = group.request("ask", &1, To::One(0), SECOND).await.unwrap();
    assert_eq!(reply["here"], "1");
    eventually("the late reply is counted", async || {
        let counts: Counts = group.request("counts", &(), To::One(0), SECOND).await.unwrap();
        (counts.replies_late == 1).then_some(())
    })
    .await;
}

#[tokio::test]
async fn listeners_that_wait_run_beside_each_other() {
    let (_stage, group) = Stage::up("chat").await;
    let start = std::time::Instant::now();
    let naps = (0..10).map(|_| group.request::<_, u64>("nap", &200, To::One(0), 5 * SECOND));
    for nap in futures_util::future::join_all(naps).await {
        assert_eq!(nap.unwrap(), 200);
    }
    assert!(start.elapsed() < Duration::from_millis(1500), "{:?}", start.elapsed());
    let all: Vec<String> = group.request("everybody", &(), To::One(2), 5 * SECOND).await.unwrap();
    assert_eq!(all, ["0 true", "1 true", "2 true", "3 true"]);
}

#[tokio::test]
async fn a_slow_worker_slows_its_senders_then_refuses_and_stops_nobody_else() {
    let (_stage, group) = Stage::up("slow").await;
    let (sent, kind, report): (u32, String, String) =
        group.request("flood", &1, To::One(0), 20 * SECOND).await.unwrap();
    assert_eq!(kind, "engine unavailable", "{report}");
    assert!(report.contains("worker 1 takes no messages"), "{report}");
    assert!(sent < 2000, "{sent} messages of 1,000 bytes went into 64 KiB, a socket and 256 listeners");
    let reply: Value = group.request("ask", &2, To::One(0), SECOND).await.unwrap();
    assert_eq!(reply["here"], "2");
}
