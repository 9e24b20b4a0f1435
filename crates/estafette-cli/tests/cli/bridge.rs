use serde_json::json;

use crate::vocabulary::Place;

#[test]
fn messages_go_from_one_transport_to_another() {
    for (from, to) in [(Place::file(), Place::sqlite()), (Place::sqlite(), Place::file())] {
        let bridge = [
            "bridge",
            "--from",
            &from.url,
            "outbound",
            "--to",
            &to.url,
            "--subscribe",
            "order.*",
            "--until-empty",
        ];
        from.ok(&bridge);
        to.ok(&["declare", "billing", "--subscribe", "#"]);
        let id = from.ok(&["publish", "order.created", r#"{"id":42}"#, "--header", "tenant=acme"]);
        let run = from.run(&bridge);
        assert_eq!(run.stderr, "bridge outbound: 1 acked, 0 retried, 0 dead (queue empty)\n");
        let message = &to.json(&["consume", "billing", "--until-empty"])[0];
        assert_eq!(message["id"], id.trim());
        assert_eq!((&message["tenant"], &message["data"]), (&json!("acme"), &json!({ "id": 42 })));
    }
}

#[test]
fn everything_can_go_to_one_queue() {
    let (from, to) = (Place::file(), Place::sqlite());
    from.run_with(&["publish", "--queue", "out", "a.b", "--ndjson"], b"1\n2\n3\n").ok();
    from.ok(&["bridge", "--from", &from.url, "out", "--to", &to.url, "--to-queue", "in", "--count", "2"]);
    assert_eq!(to.queue("in")["ready"], 2);
    assert_eq!(from.queue("out")["ready"], 1);
}

#[test]
fn what_the_other_side_has_no_queue_for_is_a_dead_letter() {
    let (from, to) = (Place::file(), Place::sqlite());
    from.ok(&["publish", "--queue", "out", "order.created", "1"]);
    from.ok(&["bridge", "--from", &from.url, "out", "--to", &to.url, "--until-empty"]);
    assert_eq!(from.json(&["dead", "list", "out"])[0]["reason"], "unhandled");
}
