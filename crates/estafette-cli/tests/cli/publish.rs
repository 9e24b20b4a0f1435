use serde_json::json;

use crate::vocabulary::{Place, on_each};

#[test]
fn prints_the_id_of_each_message() {
    on_each(|place| {
        place.ok(&["declare", "billing", "--subscribe", "order.*"]);
        let id = place.ok(&["publish", "order.created", r#"{"id":42}"#]);
        let message = &place.json(&["consume", "billing", "--count", "1"])[0];
        assert_eq!(message["id"], id.trim());
        assert_eq!(message["type"], "order.created");
        assert_eq!(message["data"], json!({ "id": 42 }));
        assert_eq!(message["specversion"], "1.0");
    });
}

#[test]
fn says_how_many_queues_took_it() {
    on_each(|place| {
        place.ok(&["declare", "billing", "--subscribe", "order.*"]);
        place.ok(&["declare", "audit", "--subscribe", "#"]);
        let receipt = &place.json(&["publish", "order.created", "1"])[0];
        assert_eq!((&receipt["queues"], &receipt["routed"]), (&json!(2), &json!(true)));
        assert_eq!(place.ok(&["publish", "order.created", "1", "--quiet"]), "1\n");
    });
}

#[test]
fn sends_to_a_queue_that_nobody_declared() {
    on_each(|place| {
        place.ok(&["publish", "--queue", "thumbnails", "[1]"]);
        place.ok(&["publish", "--queue", "thumbnails", "image.uploaded", "[2]"]);
        let messages = place.json(&["consume", "thumbnails", "--until-empty"]);
        let topics: Vec<_> = messages.iter().map(|message| message["type"].as_str().unwrap()).collect();
        assert_eq!(topics, ["thumbnails", "image.uploaded"]);
        assert_eq!(messages[1]["data"], json!([2]));
    });
}

#[test]
fn carries_headers_key_and_media_type() {
    on_each(|place| {
        let words =
            ["--queue", "q", "a.b", "x", "--header", "tenant=acme", "--header", "X-Id=1=2", "--key", "k"];
        place.ok(&[&["publish"], &words[..]].concat());
        let message = &place.json(&["consume", "q", "--count", "1"])[0];
        assert_eq!(message["tenant"], "acme");
        assert_eq!(message["headers"], r#"{"X-Id":"1=2"}"#);
        assert_eq!(message["partitionkey"], "k");
        assert_eq!(message["datacontenttype"], "text/plain; charset=utf-8");
        assert_eq!(message["data"], "x");
    });
}

#[test]
fn takes_any_bytes_from_standard_input() {
    on_each(|place| {
        place.run_with(&["publish", "--queue", "q", "-"], b"\xff\x00\n").ok();
        let message = &place.json(&["consume", "q", "--count", "1"])[0];
        assert_eq!(message["data_base64"], "/wAK");
        assert_eq!(message["datacontenttype"], "application/octet-stream");
    });
}

#[test]
fn a_json_value_loses_the_line_feed_printed_after_it() {
    let place = Place::file();
    for (arguments, data) in
        [(&[] as &[&str], json!({ "id": 42 })), (&["--content-type", "text/plain"], json!("{\"id\":42}\n"))]
    {
        let publish = [&["publish", "--queue", "q", "a.b", "-"], arguments].concat();
        place.run_with(&publish, b"{\"id\":42}\n").ok();
        assert_eq!(place.json(&["consume", "q", "--count", "1"])[0]["data"], data);
    }
}

#[test]
fn an_empty_body_is_a_message() {
    on_each(|place| {
        place.ok(&["publish", "--queue", "q"]);
        place.run_with(&["publish", "--queue", "q", "-"], b"").ok();
        let messages = place.json(&["consume", "q", "--until-empty"]);
        assert_eq!(messages.len(), 2);
        assert!(messages.iter().all(|message| message.get("data").is_none()));
    });
}

#[test]
fn publishes_a_message_for_each_line() {
    on_each(|place| {
        place.ok(&["declare", "numbers", "--subscribe", "number.*"]);
        let lines: String = (0..2500).map(|number| format!("{number}\n")).collect();
        let ids = place.run_with(&["publish", "number.counted", "--ndjson"], lines.as_bytes()).ok();
        assert_eq!(ids.lines().count(), 2500);
        let messages = place.json(&["consume", "numbers", "--until-empty"]);
        let numbers: Vec<_> = messages.iter().map(|message| message["data"].as_u64().unwrap()).collect();
        assert_eq!(numbers, (0..2500).collect::<Vec<_>>());
    });
}

#[test]
fn a_line_that_is_no_json_is_named_and_those_before_it_are_kept() {
    on_each(|place| {
        let run =
            place.run_with(&["publish", "--queue", "q", "a", "--ndjson", "-q"], b"1\n\n2\ngarbage\n4\n");
        assert_eq!((run.status, run.stdout.as_slice()), (1, b"2\n".as_slice()));
        assert!(run.stderr.contains("line 4 is not JSON"), "{}", run.stderr);
        assert!(run.stderr.contains("2 messages before it were published"), "{}", run.stderr);
        assert_eq!(place.queue("q")["ready"], 2);
    });
}

#[test]
fn a_message_no_queue_takes_is_a_warning_or_an_error() {
    on_each(|place| {
        let run = place.run(&["publish", "nobody.cares", "1"]);
        assert_eq!(run.status, 0);
        assert!(run.stderr.contains("no queue is subscribed to nobody.cares"), "{}", run.stderr);
        let complaint = place.run(&["publish", "nobody.cares", "1", "--require-queue"]).fails(1);
        assert!(complaint.contains("no queue takes this topic"), "{complaint}");
        place.run(&["publish", "--queue", "missing", "1", "--require-queue"]).fails(1);
    });
}

#[test]
fn a_delayed_message_waits_and_an_expired_one_dies() {
    on_each(|place| {
        place.ok(&["publish", "--queue", "q", "1", "--delay", "1h"]);
        place.ok(&["publish", "--queue", "q", "2", "--ttl", "1ms"]);
        // The delayed one is not waited for.
        assert_eq!(place.ok(&["consume", "q", "--until-empty"]), "");
        let queue = place.queue("q");
        assert_eq!((&queue["delayed"], &queue["dead"]), (&json!(1), &json!(1)));
        assert_eq!(place.json(&["dead", "list", "q"])[0]["reason"], "expired");
    });
}

#[test]
fn ids_that_nobody_reads_do_not_keep_messages_from_being_published() {
    let place = Place::file();
    place.ok(&["declare", "q", "--subscribe", "#"]);
    let binary = env!("CARGO_BIN_EXE_estafette");
    let script = format!("seq 5000 | '{binary}' publish a.b --ndjson | head -1");
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", &script]).env("ESTAFETTE_URL", &place.url);
    crate::vocabulary::run(shell, b"").ok();
    assert_eq!(place.queue("q")["ready"], 5000);
}
