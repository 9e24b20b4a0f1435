//! Connections with names, from `estafette.toml`.

use crate::vocabulary::{Place, Run, program, run};

const TEXT: &str = r#"
[bus]
default = "${BROKER:-first}"

[bus.drivers.first]
url = "file:./first"

[bus.drivers.second]
url = "sqlite:./second.db"

[bus.drivers.secret]
url = "amqp://user:${PASSWORD}@127.0.0.1:1/?patience=200ms"
"#;

/// A directory with the file, and nothing in the environment.
fn place() -> Place {
    let place = Place::file();
    std::fs::write(place.directory.path().join("estafette.toml"), TEXT).unwrap();
    place
}

fn run_in(place: &Place, arguments: &[&str], variables: &[(&str, &str)]) -> Run {
    let mut command = program(arguments);
    command.current_dir(place.directory.path()).envs(variables.iter().copied());
    run(command, b"")
}

#[test]
fn the_default_is_chosen_by_a_variable() {
    let place = place();
    run_in(&place, &["declare", "work"], &[]).ok();
    assert!(place.directory.path().join("first").is_dir());
    run_in(&place, &["declare", "work"], &[("BROKER", "second")]).ok();
    assert!(place.directory.path().join("second.db").is_file());
}

#[test]
fn every_command_takes_a_name() {
    let place = place();
    let bus = ["--bus", "second"];
    run_in(&place, &[&bus[..], &["publish", "--queue", "work", "a.b", "1"]].concat(), &[]).ok();
    let queues = run_in(&place, &[&["queues", "--json"], &bus[..]].concat(), &[]).ok();
    assert!(queues.contains(r#""name":"work""#), "{queues}");
    let bridge = ["bridge", "--from", "second", "work", "--to", "first", "--to-queue", "in", "--until-empty"];
    run_in(&place, &bridge, &[]).ok();
    let queues = run_in(&place, &["queues", "--json"], &[]).ok();
    assert!(queues.contains(r#""name":"in""#), "{queues}");
}

#[test]
fn what_is_said_more_closely_wins() {
    let place = place();
    let third = [("ESTAFETTE_URL", "file:./third")];
    run_in(&place, &["declare", "work"], &third).ok();
    assert!(place.directory.path().join("third").is_dir());
    run_in(&place, &["declare", "work", "--bus", "second"], &third).ok();
    assert!(place.directory.path().join("second.db").is_file());
    run_in(&place, &["declare", "work", "--url", "file:./fourth"], &third).ok();
    assert!(place.directory.path().join("fourth").is_dir());
    let both = ["declare", "work", "--url", "file:./fifth", "--bus", "second"];
    assert!(run_in(&place, &both, &[]).fails(2).contains("cannot be used with"));
}

#[test]
fn mistakes_are_named_and_secrets_are_not_shown() {
    let place = place();
    let complaint = run_in(&place, &["queues", "--bus", "thrid"], &[]).fails(2);
    assert!(complaint.contains("there is no bus \"thrid\"; there is first, second, secret"), "{complaint}");
    let complaint = run_in(&place, &["queues", "--bus", "secret"], &[]).fails(2);
    assert!(complaint.contains("the variable PASSWORD is not set"), "{complaint}");
    let complaint = run_in(&place, &["queues", "--bus", "secret"], &[("PASSWORD", "hush")]).fails(1);
    assert!(complaint.contains("127.0.0.1:1") && !complaint.contains("hush"), "{complaint}");
    let complaint = run_in(&place, &["queues", "--config", "none.toml"], &[]).fails(1);
    assert!(complaint.contains("none.toml"), "{complaint}");
}

#[test]
fn another_file_can_be_named() {
    let place = Place::file();
    std::fs::write(place.directory.path().join("other.toml"), TEXT).unwrap();
    run_in(&place, &["declare", "work", "--config", "other.toml"], &[]).ok();
    run_in(&place, &["declare", "work"], &[("ESTAFETTE_CONFIG", "other.toml")]).ok();
    assert!(run_in(&place, &["declare", "work", "--bus", "first"], &[]).fails(2).contains("--config FILE"));
}
