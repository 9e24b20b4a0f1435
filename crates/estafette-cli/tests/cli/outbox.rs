//! The outbox from the command line, on SQLite; the databases with servers are tested where the outbox is.

use std::{
    io::{BufRead as _, BufReader},
    process::Stdio,
};

use estafette::{
    Envelope,
    outbox::{Outbox, Store},
};
use rustix::process::Signal;

use crate::vocabulary::{Place, end, signal};

fn database(place: &Place) -> String {
    format!("sqlite:{}/app.db", place.directory.path().display())
}

/// Writes an event for each id, as an application would.
fn write(place: &Place, ids: std::ops::Range<u32>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut store = Store::open(&database(place)).unwrap();
        for id in ids {
            let envelope =
                Envelope::new("order.created".try_into().unwrap(), format!("{{\"id\":{id}}}").into());
            Outbox::new("shop").envelope(envelope).subject("order", id).publish(&mut store).await.unwrap();
        }
        store.close().await;
    });
}

#[test]
fn events_are_relayed_counted_retried_and_cleaned() {
    let place = Place::file();
    let db = database(&place);
    place.ok(&["declare", "billing", "--subscribe", "order.*"]);
    assert!(place.ok(&["outbox", "init", "--db", &db]).contains("the tables are in"));
    write(&place, 0..3);
    let status = &place.json(&["outbox", "status", "--db", &db])[0];
    assert_eq!((&status["waiting"], &status["sent"]), (&3.into(), &0.into()));

    let relay = ["outbox", "relay", "--db", &db, "--to", &place.url, "--until-empty"];
    assert!(place.run(&relay).ok().is_empty());
    assert_eq!(place.queue("billing")["ready"], 3);
    assert!(place.ok(&["outbox", "status", "--db", &db]).contains("sent     3"));

    place.run(&["outbox", "retry", "--db", &db]).fails(2);
    assert_eq!(place.ok(&["outbox", "retry", "--failed", "--db", &db]), "0 waiting again\n");
    assert_eq!(place.ok(&["outbox", "retry", "--topic", "order.#", "--db", &db]), "3 waiting again\n");
    place.run(&relay).ok();
    assert_eq!(place.queue("billing")["ready"], 6);
    assert!(place.ok(&["outbox", "clean", "--db", &db]).starts_with("0 sent events deleted"));
    assert!(
        place.ok(&["outbox", "clean", "--older-than", "0", "--db", &db]).starts_with("3 sent events deleted")
    );
}

#[test]
fn a_running_relay_ends_when_asked() {
    let place = Place::sqlite();
    let db = database(&place);
    place.ok(&["declare", "billing", "--subscribe", "order.*"]);
    place.ok(&["outbox", "init", "--db", &db]);
    let mut command = place.command(&["outbox", "relay", "--db", &db, "--to", &place.url]);
    let relay = command.stderr(Stdio::piped()).spawn().unwrap();
    write(&place, 0..2);
    let consumed = place.ok(&["consume", "billing", "--count", "2", "--json"]);
    assert_eq!(consumed.lines().count(), 2, "{consumed}");
    signal(relay.id(), Signal::TERM);
    let run = end(relay);
    assert!(run.stderr.contains("2 sent, 0 retried, 0 failed"), "{}", run.stderr);
}

#[test]
fn dead_letters_move_to_a_table_and_back_one_by_one() {
    let place = Place::sqlite();
    let db = database(&place);
    place.ok(&["outbox", "init", "--db", &db]);
    place.ok(&["declare", "billing", "--subscribe", "order.*"]);
    place.ok(&["publish", "order.created", "{\"id\":1}"]);
    place.ok(&["publish", "order.created", "{\"id\":2}"]);
    place.run(&["consume", "billing", "--exec", "exit 65", "--until-empty"]);
    assert_eq!(place.queue("billing")["dead"], 2);
    let exported = place.ok(&["dead", "export", "billing", "--db", &db]);
    assert_eq!(exported, "2 exported from billing\n");
    assert_eq!(place.queue("billing")["dead"], 0);
    assert_eq!(place.queue("billing")["ready"], 0);
    place.ok(&["dead", "export", "--redrive", "1", "--db", &db]);
    assert_eq!(place.queue("billing")["ready"], 1);
    place.run(&["dead", "export", "--redrive", "17", "--db", &db]).fails(1);

    let every = ["dead", "export", "billing", "--every", "20ms", "--db", &db];
    let mut command = place.command(&every);
    let mut exporting = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut printed = BufReader::new(exporting.stdout.take().unwrap());
    place.run(&["consume", "billing", "--exec", "exit 65", "--until-empty"]);
    let mut line = String::new();
    printed.read_line(&mut line).unwrap();
    assert_eq!(line, "1 exported from billing\n");
    signal(exporting.id(), Signal::TERM);
    assert_eq!(end(exporting).status, 0);
}

#[test]
fn the_schema_can_be_printed_for_each_database() {
    let place = Place::file();
    for (db, word) in [("postgres:", "LANGUAGE plpgsql"), ("mysql:", "InnoDB"), ("sqlite:x", "AUTOINCREMENT")]
    {
        assert!(place.ok(&["outbox", "init", "--print", "--db", db]).contains(word), "{db}");
    }
    place.run(&["outbox", "status", "--db", "oracle:"]).fails(1);
}
