//! The demo: a publisher and two workers.

use std::path::Path;

use serde_json::Value;

use crate::vocabulary::{Place, program, run};

#[test]
fn the_demo_loses_nothing() {
    let place = Place::file();
    let directory = place.directory.path().join("demo");
    let shown = directory.to_str().unwrap();
    let report = run(program(&["demo", "--messages", "400", "--dir", shown, "--json"]), b"").ok();
    let report: Value = serde_json::from_str(&report).unwrap();
    assert_eq!((&report["published"], &report["missing"]), (&400.into(), &0.into()));
    let count = |name: &str| report[name].as_u64().unwrap();
    assert!(count("acked") + count("dead") >= count("copies"), "{report}");
    assert!(count("retried") > 0 && count("dead") > 0, "{report}");
    let url = format!("file:{shown}/mail");
    let queues = run(program(&["queues", "--json", "--url", &url]), b"").ok();
    for queue in queues.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()) {
        assert_eq!((&queue["ready"], &queue["leased"], &queue["delayed"]), (&0.into(), &0.into(), &0.into()));
    }
    assert!(Path::new(shown).join("worker-1.log").exists());
}

#[test]
fn the_demo_says_what_came_of_it_and_where_to_look() {
    let place = Place::file();
    let directory = place.directory.path().join("demo");
    let shown = directory.to_str().unwrap();
    let text = run(program(&["demo", "--messages", "700", "--dir", shown]), b"").ok();
    for part in ["Nothing is lost", "Dead letters", "expired", "undecodable", "Look around", shown] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
}

#[test]
fn the_demo_wants_a_directory_of_its_own() {
    let place = Place::file();
    std::fs::write(place.directory.path().join("letter"), "mine").unwrap();
    let complaint = place.run(&["demo", "--json", "--dir", "."]).fails(1);
    assert!(complaint.contains("not empty"), "{complaint}");
}
