//! Several processes on one database, some of which are killed.

use std::{collections::HashSet, time::Duration};

use estafette_core::Transport;

use crate::common::{
    PATIENCE, Process, SILENCE, ack_all, config, distinct, drain, number_of, open, open_with_queue,
    part_directory, queue_name, receiver, say, send, wait_for_word,
};
use estafette_core::Durability;
use estafette_sql::{SqlConfig, SqlTransport};

/// Said before acknowledging: when the process is killed then, nobody knows whether it did.
const ACKING: &str = "acking ";

/// Short, so that what a killed consumer held comes soon.
const LEASE: Duration = Duration::from_secs(2);

/// How many workers there are in each process, each with a connection of its own.
const HANDLES: usize = 5;
const EACH: usize = 100;

#[tokio::test]
#[ignore = "a part of other tests"]
async fn part_publishes_without_end() {
    let transport = open(&part_directory()).await;
    for start in (0..).step_by(3) {
        send(&transport, start..start + 2).await;
        send(&transport, start + 2..start + 3).await;
        (start..start + 3).for_each(say);
    }
}

#[tokio::test]
#[ignore = "a part of other tests"]
async fn part_consumes_without_end() {
    let transport = open(&part_directory()).await;
    let mut receiver = receiver(&transport, LEASE).await;
    loop {
        for delivery in receiver.receive(7, PATIENCE).await.unwrap() {
            let number = number_of(&delivery);
            say(format!("{ACKING}{number}"));
            delivery.ack().await.unwrap();
            say(number);
        }
    }
}

#[tokio::test]
async fn killed_publishers_and_consumers_lose_nothing_and_repeat_nothing_acknowledged() {
    let directory = tempfile::tempdir().unwrap();
    let transport = open_with_queue(directory.path()).await;
    for round in 0..4 {
        let mut publisher = Process::start("processes::part_publishes_without_end", directory.path());
        let mut consumer = Process::start("processes::part_consumes_without_end", directory.path());
        // As many as makes the ends fall everywhere.
        let mut published: Vec<_> = (0..100 + 37 * round).map_while(|_| publisher.hear()).collect();
        let mut said: Vec<_> = (0..80 + 45 * round).map_while(|_| consumer.hear()).collect();
        published.extend(publisher.kill());
        said.extend(consumer.kill());
        let (acking, acked): (Vec<_>, Vec<_>) = said.iter().partition(|said| said.starts_with(ACKING));
        // The rest of the round, which has the same numbers as every other, once the killed consumer's leases have ended.
        let mut rest = Vec::new();
        loop {
            rest.extend(drain(&transport).await);
            let status = transport.admin().queue(&queue_name()).await.unwrap();
            if status.ready + status.leased == 0 {
                break;
            }
        }
        let came = distinct(acked.into_iter().map(|said| number(said)).chain(rest));
        let acking = acking.into_iter().map(|said| number(said.strip_prefix(ACKING).unwrap()));
        let in_doubt: HashSet<usize> = acking.filter(|number| !came.contains(number)).collect();
        assert!(in_doubt.len() <= 1, "round {round}: {in_doubt:?} were acknowledged and nobody knows");
        let is_lost = |number: &usize| !came.contains(number) && !in_doubt.contains(number);
        let lost: Vec<_> = published.iter().map(|said| number(said)).filter(is_lost).collect();
        assert!(lost.is_empty(), "round {round}: {lost:?} were published and never came");
    }
}

fn number(said: &str) -> usize {
    said.parse().unwrap()
}

/// Publishes and consumes through several connections at once; any error fails the part.
#[tokio::test]
#[ignore = "a part of other tests"]
async fn part_works() {
    say("ready");
    wait_for_word();
    let mut workers = tokio::task::JoinSet::new();
    for _ in 0..HANDLES {
        workers.spawn(work(SqlTransport::connect(config(&part_directory())).await.unwrap()));
    }
    while let Some(worked) = workers.join_next().await {
        worked.unwrap();
    }
}

async fn work(transport: SqlTransport) {
    let mut receiver = receiver(&transport, PATIENCE).await;
    for number in 0..EACH {
        send(&transport, number..number + 1).await;
        let taken = receiver.receive(2, Duration::ZERO).await.unwrap();
        let count = taken.len();
        ack_all(taken).await.unwrap();
        (0..count).for_each(|_| say("acked"));
    }
    drop(receiver);
    transport.close().await.unwrap();
}

#[tokio::test]
async fn twenty_workers_in_four_processes_never_find_the_database_locked() {
    let directory = tempfile::tempdir().unwrap();
    let transport = open_with_queue(directory.path()).await;
    let mut processes: Vec<_> =
        (0..4).map(|_| Process::start("processes::part_works", directory.path())).collect();
    for process in &mut processes {
        assert_eq!(process.hear().unwrap(), "ready");
    }
    processes.iter_mut().for_each(Process::tell);
    let acked: usize = processes.into_iter().map(|process| process.finish().len()).sum();
    let left = drain(&transport).await.len();
    assert_eq!(acked + left, 4 * HANDLES * EACH);
}

#[tokio::test]
#[ignore = "a part of other tests"]
async fn part_opens_and_sends() {
    say("ready");
    wait_for_word();
    let transport = open(&part_directory()).await;
    send(&transport, 0..1).await;
    transport.close().await.unwrap();
}

#[tokio::test]
async fn a_new_database_may_be_opened_by_five_processes_at_once() {
    for _ in 0..3 {
        let directory = tempfile::tempdir().unwrap();
        let mut processes: Vec<_> =
            (0..5).map(|_| Process::start("processes::part_opens_and_sends", directory.path())).collect();
        for process in &mut processes {
            assert_eq!(process.hear().unwrap(), "ready");
        }
        processes.iter_mut().for_each(Process::tell);
        for process in processes {
            process.finish();
        }
        assert_eq!(drain(&open(directory.path()).await).await, [0; 5]);
    }
}

#[tokio::test]
async fn a_new_database_may_be_opened_by_twenty_handles_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let config = SqlConfig { durability: Durability::Disk, ..config(directory.path()) };
    let mut opening = tokio::task::JoinSet::new();
    for _ in 0..20 {
        opening.spawn(SqlTransport::connect(config.clone()));
    }
    let mut open = Vec::new();
    while let Some(opened) = opening.join_next().await {
        open.push(opened.unwrap().unwrap());
    }
    for transport in &open {
        send(transport, 0..1).await;
    }
    let mut receiver = receiver(&open[0], PATIENCE).await;
    let taken = receiver.receive(100, SILENCE).await.unwrap();
    assert_eq!(taken.len(), 20);
}
