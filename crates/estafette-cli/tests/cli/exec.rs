use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use serde_json::json;

use crate::vocabulary::{Place, end, on_each, signal};

fn summary(place: &Place, command: &str, arguments: &[&str]) -> String {
    let run = place.run(&[&["consume", "q", "--exec", command, "--until-empty"], arguments].concat());
    assert_eq!(run.status, 0, "{}", run.stderr);
    run.stderr.lines().last().unwrap().to_owned()
}

#[test]
fn the_message_is_in_its_input_and_its_environment() {
    on_each(|place| {
        let words = ["--queue", "q", "order.created", "hello", "--header", "X-Tenant=acme", "--key", "k"];
        let id = place.ok(&[&["publish"], &words[..]].concat());
        let command = r#"echo "$(cat) $ESTAFETTE_TOPIC $ESTAFETTE_QUEUE $ESTAFETTE_ATTEMPT $ESTAFETTE_HEADER_X_TENANT $ESTAFETTE_KEY $ESTAFETTE_ID""#;
        let printed = place.ok(&["consume", "q", "--count", "1", "--exec", command]);
        assert_eq!(printed, format!("hello order.created q 1 acme k {id}"));
    });
}

#[test]
fn a_command_can_publish_to_the_same_place() {
    on_each(|place| {
        place.ok(&["publish", "--queue", "q", "1"]);
        let command = format!("'{}' publish --queue next -", env!("CARGO_BIN_EXE_estafette"));
        place.ok(&["consume", "q", "--until-empty", "--exec", &command]);
        assert_eq!(place.queue("next")["ready"], 1);
    });
}

#[test]
fn exit_status_0_acknowledges() {
    on_each(|place| {
        place.ok(&["publish", "--queue", "q", "1"]);
        assert_eq!(summary(place, "true", &[]), "consumed q: 1 acked, 0 retried, 0 dead (queue empty)");
    });
}

#[test]
fn exit_status_75_retries() {
    on_each(|place| {
        place.ok(&["publish", "--queue", "q", "1"]);
        let command = "[ $ESTAFETTE_ATTEMPT = 3 ] || exit 75";
        let summary = summary(place, command, &["--retry-delay", "10ms"]);
        assert_eq!(summary, "consumed q: 1 acked, 2 retried, 0 dead (queue empty)");
    });
}

#[test]
fn exit_status_65_rejects() {
    on_each(|place| {
        place.ok(&["publish", "--queue", "q", "1"]);
        let summary = summary(place, "echo no such order >&2; exit 65", &[]);
        assert_eq!(summary, "consumed q: 0 acked, 0 retried, 1 dead (queue empty)");
        let letter = &place.json(&["dead", "list", "q"])[0];
        assert_eq!((&letter["reason"], &letter["attempts"]), (&json!("rejected"), &json!(1)));
        assert_eq!(letter["error"], "exit status 65: no such order");
    });
}

#[test]
fn any_other_end_is_a_failed_attempt_with_the_end_of_its_standard_error() {
    on_each(|place| {
        place.ok(&["publish", "--queue", "q", "1"]);
        let command = "seq 100000 >&2; echo the end >&2; exit 3";
        let summary = summary(place, command, &["--max-attempts", "2", "--retry-delay", "10ms"]);
        assert_eq!(summary, "consumed q: 0 acked, 1 retried, 1 dead (queue empty)");
        let letter = &place.json(&["dead", "list", "q"])[0];
        assert_eq!((&letter["reason"], &letter["attempts"]), (&json!("attempts_exhausted"), &json!(2)));
        let error = letter["error"].as_str().unwrap();
        assert!(error.starts_with("exit status 3: ") && error.ends_with("100000\nthe end"), "{error}");
        assert!(error.len() < 3000);
    });
}

#[test]
fn a_command_killed_by_a_signal_has_failed() {
    let place = Place::file();
    place.ok(&["publish", "--queue", "q", "1"]);
    summary(&place, "kill -9 $$", &["--max-attempts", "1"]);
    assert_eq!(place.json(&["dead", "list", "q"])[0]["error"], "killed by signal 9");
}

#[test]
fn a_command_that_does_not_read_its_input_is_fine() {
    on_each(|place| {
        let large = vec![b'1'; 1 << 20];
        place.run_with(&["publish", "--queue", "q", "-"], &large).ok();
        assert!(summary(place, "exit 0", &[]).contains("1 acked"));
    });
}

#[test]
fn a_process_left_behind_does_not_hold_the_message() {
    let place = Place::file();
    place.ok(&["publish", "--queue", "q", "1"]);
    let started = Instant::now();
    assert!(summary(&place, "sleep 20 > /dev/null & exit 0", &[]).contains("1 acked"));
    assert!(started.elapsed() < Duration::from_secs(10));
}

#[test]
fn too_long_a_command_is_killed_with_all_it_started() {
    on_each(|place| {
        place.ok(&["publish", "--queue", "q", "1"]);
        let command = "sleep 1000 & echo $!; wait";
        let arguments = ["--time-limit", "300ms", "--max-attempts", "1", "--until-empty"];
        let printed = place.ok(&[&["consume", "q", "--exec", command], &arguments[..]].concat());
        assert!(place.json(&["dead", "list", "q"])[0]["error"].as_str().unwrap().contains("took longer"));
        assert!(ends_soon(printed.trim()), "process {printed} still runs");
    });
}

/// Whether a process ends, or only its entry in the table of processes is left, within a few seconds.
fn ends_soon(id: &str) -> bool {
    let deadline = Instant::now() + Duration::from_secs(5);
    let is_gone = || {
        let stat = std::fs::read_to_string(Path::new("/proc").join(id).join("stat")).unwrap_or_default();
        stat.is_empty() || stat.contains(") Z ")
    };
    while Instant::now() < deadline {
        if is_gone() {
            return true;
        }
        std::thread::yield_now();
    }
    is_gone()
}

#[test]
fn what_runs_when_asked_to_stop_may_end_and_the_rest_goes_back() {
    on_each(|place| {
        place.run_with(&["publish", "--queue", "q", "a", "--ndjson"], b"1\n2\n").ok();
        let gate = place.directory.path().join("gate");
        assert!(std::process::Command::new("mkfifo").arg(&gate).status().unwrap().success());
        let mut command = place.command(&["consume", "q", "--exec", "echo started; read go < gate"]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        output.read_line(&mut String::new()).unwrap();
        signal(child.id(), Signal::TERM);
        std::fs::write(&gate, "go\n").unwrap();
        let run = end(child);
        assert_eq!(run.status, 0, "{}", run.stderr);
        assert!(run.stderr.contains("1 acked"), "{}", run.stderr);
        assert_eq!(place.queue("q")["ready"], 1);
    });
}

#[test]
fn a_second_signal_kills_what_runs_and_its_message_goes_back() {
    on_each(|place| {
        place.ok(&["publish", "--queue", "q", "1"]);
        let mut command =
            place.command(&["consume", "q", "--exec", "sleep 1000 > /dev/null & echo $!; wait"]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut id = String::new();
        output.read_line(&mut id).unwrap();
        signal(child.id(), Signal::TERM);
        signal(child.id(), Signal::INT);
        let run = end(child);
        assert_eq!(run.status, 0, "{}", run.stderr);
        assert!(run.stderr.ends_with("0 acked, 0 retried, 0 dead (signal)\n"), "{}", run.stderr);
        assert!(ends_soon(id.trim()), "process {id} still runs");
        assert_eq!(place.queue("q")["ready"], 1);
    });
}

#[test]
fn enough_failures_end_it() {
    on_each(|place| {
        let lines = "1\n".repeat(50);
        place.run_with(&["publish", "--queue", "q", "a", "--ndjson"], lines.as_bytes()).ok();
        let summary = summary(place, "exit 1", &["--failure-limit", "2", "--retry-delay", "1h"]);
        assert!(summary.ends_with("(failure limit)"), "{summary}");
        // One or two may have begun before the second failure was stored.
        let delayed = place.queue("q")["delayed"].as_u64().unwrap();
        assert!((2..10).contains(&delayed), "{delayed}");
    });
}
