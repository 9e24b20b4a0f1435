//! RabbitMQ from the command line. Needs the broker of `scripts/services`.

use tempfile::TempDir;

use crate::vocabulary::Place;

fn broker() -> Place {
    let Ok(url) = std::env::var("ESTAFETTE_TEST_AMQP_URL") else {
        panic!(
            "this test needs RabbitMQ: run `scripts/services up`, then `eval \"$(scripts/services env)\"`"
        );
    };
    Place { directory: TempDir::new().unwrap(), url }
}

#[test]
fn dead_letters_are_listed_shown_redriven_and_purged_by_later_runs() {
    let place = broker();
    let word = format!("cli{}", std::process::id());
    let (queue, topic) = (format!("{word}-billing"), format!("{word}.created"));
    place.ok(&["declare", &queue, "--subscribe", &format!("{word}.*")]);
    place.ok(&["publish", &topic, "1"]);
    place.ok(&["publish", &topic, "2"]);
    let refuse = || place.ok(&["consume", &queue, "--count", "2", "--exec", "exit 65"]);
    refuse();
    let letters = place.json(&["dead", "list", &queue]);
    assert_eq!(letters.len(), 2);
    assert_eq!((&letters[0]["topic"], &letters[0]["reason"]), (&topic.into(), &"rejected".into()));
    let id = letters[0]["id"].as_str().unwrap();
    assert!(place.ok(&["dead", "show", &queue, "--id", id]).contains(id));
    place.ok(&["dead", "redrive", &queue, "--all"]);
    place.run(&["dead", "list", &queue, "--id", id]).fails(1);
    refuse();
    place.ok(&["dead", "purge", &queue, "--all"]);
    place.run(&["dead", "list", &queue, "--id", id]).fails(1);
    place.ok(&["delete", &queue]);
}

#[test]
fn a_foreign_queue_is_used_as_it_is() {
    let place = broker();
    let queue = format!("cli{}-foreign", std::process::id());
    let limited = Place {
        directory: TempDir::new().unwrap(),
        url: format!("{}?queue_arguments=x-max-length:5", place.url),
    };
    limited.ok(&["declare", &queue]);
    let complaint = place.run(&["declare", &queue]).fails(1);
    assert!(complaint.contains(&queue) && complaint.contains("x-max-length"), "{complaint}");
    let passive = Place { directory: TempDir::new().unwrap(), url: format!("{}?declare=passive", place.url) };
    passive.ok(&["declare", &queue]);
    passive.ok(&["publish", "--queue", &queue, "some.topic", "1"]);
    passive.ok(&["consume", &queue, "--count", "1"]);
    passive.ok(&["delete", &queue]);
}
