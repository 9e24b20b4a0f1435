use serde_json::json;

use crate::vocabulary::{Place, on_each};

/// A place with three dead letters in the queue `q`: two rejected, one expired.
fn bury(place: &Place) -> Vec<String> {
    place.ok(&["publish", "--queue", "q", "order.created", "1"]);
    place.ok(&["publish", "--queue", "q", "order.paid", "2", "--header", "tenant=acme"]);
    place.ok(&["consume", "q", "--until-empty", "--exec", "exit 65"]);
    place.ok(&["publish", "--queue", "q", "email.code", "3", "--ttl", "1ms"]);
    place.ok(&["consume", "q", "--until-empty"]);
    let letters = place.json(&["dead", "list", "q"]);
    letters.iter().map(|letter| letter["id"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn they_are_listed_with_what_became_of_them() {
    on_each(|place| {
        let ids = bury(place);
        assert_eq!(ids.len(), 3);
        let letter = &place.json(&["dead", "list", "q"])[0];
        for field in
            ["id", "topic", "queue", "reason", "error", "attempts", "first_failed_at", "last_failed_at"]
        {
            assert!(letter.get(field).is_some(), "{field}");
        }
        assert_eq!((&letter["topic"], &letter["queue"]), (&json!("order.created"), &json!("q")));
        let table = place.ok(&["dead", "list", "q"]);
        assert_eq!(table.lines().count(), 4, "{table}");
    });
}

#[test]
fn they_can_be_chosen_by_id_reason_and_topic() {
    on_each(|place| {
        let ids = bury(place);
        let count = |arguments: &[&str]| place.json(&[&["dead", "list", "q"], arguments].concat()).len();
        assert_eq!(count(&["--id", &ids[0], "--id", &ids[1]]), 2);
        assert_eq!(count(&["--reason", "rejected"]), 2);
        assert_eq!(count(&["--topic", "order.*"]), 2);
        assert_eq!(count(&["--reason", "rejected", "--topic", "order.paid"]), 1);
        assert_eq!(count(&["--all"]), 3);
        place.run(&["dead", "list", "q", "--id", "unknown"]).fails(1);
    });
}

#[test]
fn one_is_shown_with_its_message() {
    on_each(|place| {
        let ids = bury(place);
        let letter = &place.json(&["dead", "show", "q", "--id", &ids[1]])[0];
        assert_eq!(letter["message"]["data"], 2);
        assert_eq!(letter["message"]["tenant"], "acme");
        let page = place.ok(&["dead", "show", "q", "--id", &ids[1]]);
        assert!(page.contains("header        tenant=acme\nbody          2\n"), "{page}");
    });
}

#[test]
fn redriven_ones_come_again_from_the_first_attempt() {
    on_each(|place| {
        let ids = bury(place);
        assert_eq!(place.ok(&["dead", "redrive", "q", "--id", &ids[0]]), "1 redriven\n");
        assert_eq!(place.json(&["dead", "redrive", "q", "--reason", "rejected"])[0]["redriven"], 1);
        let printed = place.ok(&["consume", "q", "--until-empty", "--exec", "echo $ESTAFETTE_ATTEMPT"]);
        assert_eq!(printed, "1\n1\n");
        assert_eq!(place.queue("q")["dead"], 1);
    });
}

#[test]
fn purged_ones_are_gone() {
    on_each(|place| {
        bury(place);
        assert_eq!(place.ok(&["dead", "purge", "q", "--topic", "order.#"]), "2 purged\n");
        assert_eq!(place.ok(&["dead", "purge", "q", "--all"]), "1 purged\n");
        assert_eq!(place.queue("q")["dead"], 0);
    });
}

#[test]
fn nothing_is_changed_without_saying_which_ones() {
    on_each(|place| {
        bury(place);
        for verb in ["redrive", "purge"] {
            let complaint = place.run(&["dead", verb, "q"]).fails(2);
            assert!(complaint.contains("--all"), "{complaint}");
        }
        place.run(&["dead", "purge", "q", "--all", "--reason", "expired"]).fails(2);
        assert_eq!(place.queue("q")["dead"], 3);
    });
}

#[test]
fn a_queue_that_does_not_exist_is_an_error() {
    on_each(|place| {
        let complaint = place.run(&["dead", "list", "nowhere"]).fails(1);
        assert!(complaint.contains("there is no queue nowhere"), "{complaint}");
    });
}
