//! That no statement of daily work passes over a table: with many messages waiting, SQLite's own plans of everything that
//! publishing, claiming and settling executed.

use std::time::Duration;

use estafette_core::{Envelope, Failure, Outcome, Outgoing, QueueSpec, Reason, Ticket};

use super::{
    claim::{self, Taken},
    connect,
    publish::{self, Batch},
    queues,
    raw::{Database, Value},
    schema,
    session::Session,
    settle,
};
use crate::{
    SqlConfig,
    leases::Leases,
    routes::QueueId,
    store::{Claim, Fate},
};

/// Tables that hold a row or a few whatever happens, or one for each queue and process.
const SMALL: [&str; 3] = ["estafette_schema", "estafette_subscription", "estafette_owner"];

fn messages(count: usize) -> Vec<Outgoing> {
    let message = |number: usize| {
        let mut envelope = Envelope::new("work.made".parse().unwrap(), "{}".into());
        envelope.partition_key = number.is_multiple_of(3).then(|| format!("key {}", number % 30).into());
        Outgoing::publish(envelope)
    };
    (0..count).map(message).collect()
}

fn take(session: &mut Session<'_>, queue: QueueId, ordered_by_key: bool) -> Taken {
    let lease = Duration::from_secs(60);
    let claim = Claim { queue, name: "work".parse().unwrap(), max: 7, lease, ordered_by_key };
    assert!(claim::probe(session, &claim).unwrap().is_none());
    claim::claim(session, &claim).unwrap()
}

fn settle(session: &mut Session<'_>, queue: QueueId, taken: &Taken, fate: &Fate) {
    let leases = Leases::default();
    let tickets: Vec<Ticket> = taken.messages.iter().map(|message| message.ticket).collect();
    tickets.iter().for_each(|ticket| leases.add(*ticket));
    let batch: Vec<_> =
        leases.take(tickets.iter()).into_iter().map(|lease| (lease.unwrap(), fate.clone())).collect();
    let ends = settle::settle(session, queue, &batch).unwrap();
    assert!(!ends.is_empty() && ends.iter().all(Option::is_some));
}

/// A day's work.
fn work(session: &mut Session<'_>) {
    let spec = QueueSpec::durable("work".parse().unwrap()).subscribe("work.#".parse().unwrap());
    queues::declare(session, &spec, "me").unwrap();
    let queue = session.queue(&spec.name).unwrap();
    for _ in 0..100 {
        publish::publish(session, &Batch::new(messages(100)).unwrap()).unwrap();
    }
    let failure = Failure::new(Reason::Rejected, "no");
    for outcome in [
        Outcome::Ack,
        Outcome::Retry { after: Duration::ZERO, error: Some("no".into()) },
        Outcome::Reject(failure),
        Outcome::Release { after: Duration::ZERO },
    ] {
        for ordered_by_key in [false, true] {
            let taken = take(session, queue, ordered_by_key);
            settle(session, queue, &taken, &Fate::Settled(outcome.clone()));
        }
    }
    let taken = take(session, queue, false);
    settle(session, queue, &taken, &Fate::Dropped);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_statement_of_daily_work_passes_over_a_table() {
    let directory = tempfile::tempdir().unwrap();
    let config = SqlConfig::sqlite(directory.path().join("mail.db"));
    let mut connection = connect(&config).await.unwrap();
    schema::migrate(&mut connection, config.busy_max).await.unwrap();
    let mut handle = connection.lock_handle().await.unwrap();
    let database = Database::new(&mut handle);
    let mut session = Session::new(&database);
    work(&mut session);
    let mut explained = 0;
    for sql in session.known().into_iter().filter(|sql| !sql.starts_with("PRAGMA")) {
        let mut plan = Vec::new();
        let explain = database.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
        let values = vec![Value::Null; explain.parameters()];
        explain
            .query(&values, |row| {
                plan.push(row.text(3)?.to_owned());
                Ok(())
            })
            .unwrap();
        let slow = |step: &&String| {
            let scans = step.starts_with("SCAN") && !SMALL.iter().any(|small| step.contains(small));
            (scans && *step != "SCAN CONSTANT ROW")
                || step.contains("TEMP B-TREE")
                || step.contains("AUTOMATIC")
        };
        assert_eq!(plan.iter().find(slow), None, "{sql}\n{plan:#?}");
        explained += 1;
    }
    assert!(explained > 12, "{explained} statements");
}
