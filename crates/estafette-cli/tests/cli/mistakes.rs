use crate::vocabulary::{Place, program, run};

#[test]
fn a_missing_url_says_how_to_give_one() {
    for command in [&["queues"][..], &["publish", "a", "1"], &["consume", "q"], &["doctor"], &["bench"]] {
        let complaint = run(program(command), b"").fails(2);
        assert!(
            complaint.contains("--url file:./mail") && complaint.contains("ESTAFETTE_URL"),
            "{complaint}"
        );
    }
}

#[test]
fn an_unknown_scheme_names_the_known_ones() {
    let complaint = run(program(&["queues", "--url", "pigeon:./loft"]), b"").fails(1);
    assert!(complaint.contains("no driver for the scheme \"pigeon\""), "{complaint}");
    assert!(complaint.contains("file:./mail"), "{complaint}");
    assert_eq!(complaint.lines().count(), 1);
}

#[test]
fn a_wrong_setting_of_the_url_is_named() {
    let place = Place::file();
    let complaint = place.run(&["queues", "--url", "file:./mail?colour=red"]).fails(1);
    assert!(complaint.contains("colour"), "{complaint}");
}

#[test]
fn a_place_that_cannot_be_written_is_one_clear_line() {
    for url in ["file:/proc/nowhere", "sqlite:/proc/nowhere/mail.db"] {
        let complaint = run(program(&["queues", "--url", url]), b"").fails(1);
        assert!(
            complaint.contains("cannot connect to") && complaint.contains("/proc/nowhere"),
            "{complaint}"
        );
        assert_eq!(complaint.lines().count(), 1, "{complaint}");
    }
}

#[test]
fn wrong_names_are_refused_before_anything_happens() {
    let place = Place::file();
    for (arguments, part) in [
        (&["publish", "order created", "1"][..], "contains ' '"),
        (&["publish", "order..created", "1"], "empty word"),
        (&["publish", "order.*", "1"], "'*'"),
        (&["publish"], "TOPIC"),
        (&["publish", "--queue", "a/b c", "1"], "queue name"),
        (&["publish", "a", "1", "--header", "nothing"], "NAME=VALUE"),
        (&["publish", "a", "1", "--delay", "soon"], "length of time"),
        (&["publish", "a", "1", "--ndjson"], "standard input"),
        (&["declare", "q", "--subscribe", "a.b*"], "wildcard inside a word"),
        (&["consume", "q", "--memory-limit", "much"], "256MiB"),
        (&["consume", "q", "--max-attempts", "0"], "0 is not in"),
        (&["consume", "q", "--lease", "0s"], "at least 100ms"),
        (&["dead", "list", "q", "--reason", "boredom"], "attempts_exhausted"),
        (&["dance"], "dance"),
    ] {
        let complaint = place.run(arguments).fails(2);
        assert!(complaint.contains(part), "{arguments:?}: {complaint}");
    }
    assert!(place.json(&["queues"]).is_empty());
}

#[test]
fn a_topic_that_is_not_utf_8_is_refused() {
    use std::os::unix::ffi::OsStrExt as _;
    let place = Place::file();
    let mut command = place.command(&["publish"]);
    command.arg(std::ffi::OsStr::from_bytes(b"order.\xff")).arg("1");
    assert!(run(command, b"").fails(2).contains("not UTF-8"));
}

#[test]
fn too_large_a_body_is_refused_clearly() {
    let place = Place::file();
    let url = format!("{}&body_max=1000", place.url);
    let run = place.run_with(&["publish", "--queue", "q", "-", "--url", &url], &[b'x'; 1001]);
    assert!(run.fails(1).contains("too large"));
}
