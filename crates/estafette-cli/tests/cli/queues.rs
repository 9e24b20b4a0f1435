use serde_json::json;

use crate::vocabulary::on_each;

#[test]
fn shows_what_is_in_each_queue() {
    on_each(|place| {
        place.ok(&["declare", "billing", "--subscribe", "order.*", "--subscribe", "payment.#"]);
        place.ok(&["declare", "empty"]);
        place.ok(&["publish", "order.created", "1"]);
        place.ok(&["publish", "order.created", "2", "--delay", "1h"]);
        let expected = [
            json!({ "name": "billing", "patterns": ["order.*", "payment.#"], "ready": 1, "delayed": 1, "leased": 0, "dead": 0 }),
            json!({ "name": "empty", "patterns": [], "ready": 0, "delayed": 0, "leased": 0, "dead": 0 }),
        ];
        assert_eq!(place.json(&["queues"]), expected);
        let table = place.ok(&["queues"]);
        assert!(table.starts_with("name     patterns           ready  delayed  leased  dead\n"), "{table}");
    });
}

#[test]
fn declaring_again_adds_patterns() {
    on_each(|place| {
        place.ok(&["declare", "billing", "--subscribe", "order.*"]);
        let declared = place.ok(&["declare", "billing", "--subscribe", "payment.*"]);
        assert_eq!(declared, "declared billing, subscribed to payment.*\n");
        assert_eq!(place.queue("billing")["patterns"], json!(["order.*", "payment.*"]));
    });
}

#[test]
fn a_deleted_queue_is_gone_with_its_messages() {
    on_each(|place| {
        place.ok(&["publish", "--queue", "q", "1"]);
        assert_eq!(place.ok(&["delete", "q"]), "deleted q\n");
        assert!(place.json(&["queues"]).is_empty());
        let complaint = place.run(&["delete", "q"]).fails(1);
        assert!(complaint.contains("there is no queue q"), "{complaint}");
    });
}

#[test]
fn without_a_queue_there_is_a_word_about_it() {
    on_each(|place| {
        let run = place.run(&["queues"]);
        assert!(run.stderr.contains("there is no queue yet"), "{}", run.stderr);
        assert_eq!(run.ok(), "");
    });
}
