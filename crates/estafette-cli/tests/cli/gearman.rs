//! Gearman from the command line. Needs the server of `scripts/services`.

use tempfile::TempDir;

use crate::vocabulary::Place;

fn server(settings: &str) -> Place {
    let Ok(url) = std::env::var("ESTAFETTE_TEST_GEARMAN_URL") else {
        panic!(
            "this test needs gearmand: run `scripts/services up`, then `eval \"$(scripts/services env)\"`"
        );
    };
    let directory = TempDir::new().unwrap();
    let url = format!("{url}?state={}{settings}", directory.path().join("state").display());
    Place { directory, url }
}

#[test]
fn messages_are_sent_retried_buried_and_redriven_by_later_runs() {
    let place = server("");
    let queue = format!("cli{}-mailer", std::process::id());
    place.ok(&["publish", "--queue", &queue, "email.welcome", "{\"to\":\"bob\"}"]);
    place.ok(&["consume", &queue, "--count", "1", "--exec", "exit 65"]);
    let letters = place.json(&["dead", "list", &queue]);
    assert_eq!((&letters[0]["topic"], &letters[0]["reason"]), (&"email.welcome".into(), &"rejected".into()));
    place.ok(&["dead", "redrive", &queue, "--all"]);
    place.ok(&["consume", &queue, "--until-empty", "--exec", "test \"$ESTAFETTE_ATTEMPT\" = 1"]);
    let queues = place.json(&["queues"]);
    let ours = queues.iter().find(|status| status["name"] == *queue).unwrap();
    assert_eq!((&ours["ready"], &ours["leased"], &ours["dead"]), (&0.into(), &0.into(), &0.into()));
    place.ok(&["delete", &queue]);
}

#[test]
fn a_topic_needs_the_list() {
    let queue = format!("cli{}-billing", std::process::id());
    let complaint = server("").run(&["publish", "order.created", "1"]).fails(1);
    assert!(complaint.contains("subscribe="), "{complaint}");
    let place = server(&format!("&subscribe={queue}:order.*"));
    place.ok(&["publish", "--require-queue", "order.created", "1"]);
    place.ok(&["consume", &queue, "--count", "1"]);
    place.ok(&["delete", &queue]);
}
