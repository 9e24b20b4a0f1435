//! The commands that look at a place: doctor, conformance, bench.

use crate::vocabulary::{on_each, program, run};

#[test]
fn the_doctor_tries_everything_out_and_leaves_nothing_behind() {
    on_each(|place| {
        let report = &place.json(&["doctor"])[0];
        assert_eq!(report["works"], true);
        let steps = report["steps"].as_array().unwrap();
        assert!(steps.iter().all(|step| step["works"] == true), "{steps:?}");
        assert_eq!(report["guarantees"]["shared"], "yes");
        assert!(place.json(&["queues"]).is_empty());
        let text = place.ok(&["doctor"]);
        assert!(
            text.contains("✓ connects") && text.contains("guarantees") && text.contains(" works"),
            "{text}"
        );
    });
}

#[test]
fn the_doctor_says_what_is_wrong() {
    let run = run(program(&["doctor", "--url", "file:/proc/nowhere"]), b"");
    assert_eq!(run.status, 1);
    assert!(String::from_utf8(run.stdout).unwrap().contains("✗ connects"));
    assert!(run.stderr.contains("/proc/nowhere"), "{}", run.stderr);
}

#[test]
fn conformance_is_a_table_or_json() {
    on_each(|place| {
        let report = &place.json(&["conformance", "--only", "order::"])[0];
        assert_eq!(report["passed"], true, "{report}");
        assert!(!report["behaviours"].as_array().unwrap().is_empty());
        let table = place.ok(&["conformance", "--only", "order::"]);
        assert!(table.contains(" hold, 0 violated"), "{table}");
        assert!(place.json(&["queues"]).is_empty());
    });
}

#[test]
fn conformance_also_asks_from_other_processes() {
    on_each(|place| {
        let report = &place.json(&["conformance", "--only", "processes::"])[0];
        let behaviours = report["behaviours"].as_array().unwrap();
        assert!(behaviours.iter().any(|behaviour| behaviour["verdict"] == "holds"), "{report}");
    });
}

#[test]
fn bench_measures_each_stage_and_cleans_up() {
    on_each(|place| {
        let stages = place.json(&["bench", "--messages", "200", "--time-limit", "2s"]);
        let names: Vec<_> = stages.iter().map(|stage| stage["stage"].as_str().unwrap()).collect();
        let expected =
            ["publish", "publish in batches", "consume and ack in batches", "publish to delivery, idle"];
        assert_eq!(names, expected);
        for stage in &stages {
            assert!(stage["per_second"].as_f64().unwrap() > 0.0, "{stage}");
            assert!(stage["p50_microseconds"].as_f64() <= stage["p99_microseconds"].as_f64(), "{stage}");
        }
        assert_eq!(stages[2]["messages"], 400);
        assert!(place.json(&["queues"]).is_empty());
    });
}
