use std::{
    io::{BufRead as _, BufReader},
    process::Stdio,
};

use rustix::process::Signal;
use serde_json::json;

use crate::vocabulary::{Place, end, on_each, run, signal};

#[test]
fn a_printed_message_is_acknowledged() {
    on_each(|place| {
        place.ok(&["publish", "--queue", "q", "1"]);
        let run = place.run(&["consume", "q", "--count", "1"]);
        assert_eq!(run.stderr, "consumed q: 1 acked, 0 retried, 0 dead (count reached)\n");
        assert_eq!(run.ok().lines().count(), 1);
        let queue = place.queue("q");
        assert_eq!((&queue["ready"], &queue["leased"]), (&json!(0), &json!(0)));
    });
}

#[test]
fn the_queue_is_declared_and_subscribed_first() {
    on_each(|place| {
        place.ok(&["consume", "billing", "--subscribe", "order.*", "--until-empty"]);
        assert_eq!(place.queue("billing")["patterns"], json!(["order.*"]));
    });
}

#[test]
fn it_ends_after_a_count_a_time_or_when_empty() {
    on_each(|place| {
        place.run_with(&["publish", "--queue", "q", "a", "--ndjson"], b"1\n2\n3\n").ok();
        let reason = |arguments: &[&str]| {
            let run = place.run(&[&["consume", "q", "--json"], arguments].concat());
            let summary: serde_json::Value = serde_json::from_str(&run.stderr).unwrap();
            (run.ok().lines().count(), summary["reason"].as_str().unwrap().to_owned())
        };
        assert_eq!(reason(&["--count", "1"]), (1, "count reached".into()));
        assert_eq!(reason(&["--for", "200ms", "--concurrency", "4"]), (2, "time passed".into()));
        assert_eq!(reason(&["--until-empty"]), (0, "queue empty".into()));
        assert_eq!(reason(&["--memory-limit", "1kB"]), (0, "memory limit".into()));
    });
}

#[test]
fn a_signal_ends_it_gracefully() {
    on_each(|place| {
        place.ok(&["publish", "--queue", "q", "1"]);
        for stop in [Signal::TERM, Signal::INT] {
            place.ok(&["publish", "--queue", "q", "1"]);
            let mut command = place.command(&["consume", "q"]);
            let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
            let mut output = BufReader::new(child.stdout.take().unwrap());
            output.read_line(&mut String::new()).unwrap();
            signal(child.id(), stop);
            let run = end(child);
            assert!(run.stderr.ends_with("(signal)\n"), "{}", run.stderr);
            assert_eq!(run.status, 0);
        }
    });
}

#[test]
fn what_could_not_be_printed_is_not_acknowledged() {
    on_each(|place| {
        place.ok(&["declare", "q"]);
        let lines: String = (0..3000).map(|number| format!("{number}\n")).collect();
        place.run_with(&["publish", "--queue", "q", "a", "--ndjson", "-q"], lines.as_bytes()).ok();
        let binary = env!("CARGO_BIN_EXE_estafette");
        // The reader takes one line and goes: what fits into the pipe was printed, the rest was not.
        let script = format!("'{binary}' consume q | head -1");
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", &script]).env("ESTAFETTE_URL", &place.url);
        let first = run(shell, b"");
        assert_eq!(first.stderr, "", "it ends quietly");
        assert_eq!(first.ok().lines().count(), 1);
        let left = place.queue("q")["ready"].as_u64().unwrap();
        // A pipe holds 64 KiB, and a message is more than 200 bytes here.
        assert!((2600..3000).contains(&left), "{left} are left");
        let rest = place.json(&["consume", "q", "--until-empty"]);
        assert_eq!(rest.len() as u64, left);
        assert_eq!(rest.last().unwrap()["data"], 2999);
    });
}

#[test]
fn a_full_disk_under_the_output_is_an_error_and_nothing_is_acknowledged() {
    let place = Place::file();
    place.ok(&["publish", "--queue", "q", "1"]);
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let mut command = place.command(&["consume", "q"]);
    let child = command.stdout(full).stderr(Stdio::piped()).spawn().unwrap();
    let complaint = end(child).fails(1);
    assert!(complaint.contains("cannot write to standard output"), "{complaint}");
    assert_eq!(place.queue("q")["ready"], 1);
}

#[test]
fn messages_of_one_key_are_handled_one_after_the_other() {
    on_each(|place| {
        for number in 0..5 {
            place.ok(&["publish", "--queue", "q", &number.to_string(), "--key", "k"]);
        }
        let command = "read n; echo start $n; sleep 0.05; echo end $n";
        let arguments =
            ["consume", "q", "--ordered", "--concurrency", "5", "--until-empty", "--exec", command];
        let lines = place.ok(&arguments);
        let expected: String = (0..5).map(|number| format!("start {number}\nend {number}\n")).collect();
        assert_eq!(lines, expected);
    });
}
