//! Several processes on one directory, some of which are killed.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use crate::common::{
    LEASE_LONG, Process, declare, distinct, drain, number_of, numbered, part_directory, quick, receiver, say,
    send, take_one, wait_for_word,
};
use estafette_core::{QueueSpec, Transport};

/// Said before acknowledging: when the process is killed then, nobody knows whether it did.
const ACKING: &str = "acking ";

#[tokio::test]
#[ignore = "a part of other tests"]
async fn part_holds_one() {
    let transport = quick(&part_directory());
    let delivery = take_one(&mut receiver(&transport, LEASE_LONG).await).await;
    say(format!("{} {}", number_of(&delivery), delivery.attempt()));
    wait_for_word();
}

#[tokio::test]
#[ignore = "a part of other tests"]
async fn part_drains() {
    let transport = quick(&part_directory());
    say("ready");
    wait_for_word();
    let mut receiver = receiver(&transport, LEASE_LONG).await;
    loop {
        let taken = receiver.receive(7, Duration::from_millis(500)).await.unwrap();
        if taken.is_empty() {
            break;
        }
        for delivery in taken {
            let number = number_of(&delivery);
            say(format!("{ACKING}{number}"));
            delivery.ack().await.unwrap();
            say(number);
        }
    }
}

#[tokio::test]
#[ignore = "a part of other tests"]
async fn part_publishes_without_end() {
    let transport = quick(&part_directory());
    for start in (0..).step_by(3) {
        send(&transport, start..start + 2).await;
        transport.publish(&[numbered(start + 2)]).await.pop().unwrap().unwrap();
        (start..start + 3).for_each(say);
    }
}

#[tokio::test]
#[ignore = "a part of other tests"]
async fn part_keeps_a_temporary_queue() {
    let transport = quick(&part_directory());
    let queue = QueueSpec::temporary();
    transport.declare(&queue).await.unwrap();
    say(queue.name);
    wait_for_word();
}

#[tokio::test]
async fn a_killed_process_gives_back_what_it_held_and_only_that_attempt_counts() {
    let directory = tempfile::tempdir().unwrap();
    let transport = quick(directory.path());
    declare(&transport).await;
    send(&transport, 0..100).await;
    let mut receiver = receiver(&transport, LEASE_LONG).await;
    for attempt in 1..=3 {
        let mut holder = Process::start("processes::part_holds_one", directory.path());
        assert_eq!(holder.hear().unwrap(), format!("0 {attempt}"));
        holder.kill();
    }
    let killed = Instant::now();
    let mut taken = vec![take_one(&mut receiver).await];
    assert!(killed.elapsed() < Duration::from_secs(10), "the lease was waited for");
    while taken.len() < 100 {
        taken.push(take_one(&mut receiver).await);
    }
    for delivery in &taken {
        let expected = if number_of(delivery) == 0 { 4 } else { 1 };
        assert_eq!(delivery.attempt(), expected, "number {}", number_of(delivery));
    }
    assert_eq!(distinct(taken.iter().map(number_of)).len(), 100);
}

#[tokio::test]
async fn a_waiting_receiver_is_woken_when_an_owner_is_killed() {
    let directory = tempfile::tempdir().unwrap();
    let transport = quick(directory.path());
    declare(&transport).await;
    send(&transport, 0..1).await;
    let mut holder = Process::start("processes::part_holds_one", directory.path());
    holder.hear().unwrap();
    let mut receiver = receiver(&transport, LEASE_LONG).await;
    let waiting = tokio::spawn(async move { take_one(&mut receiver).await.attempt() });
    holder.kill();
    assert_eq!(waiting.await.unwrap(), 2);
}

#[tokio::test]
async fn eight_processes_share_a_backlog_and_nothing_comes_twice() {
    let directory = tempfile::tempdir().unwrap();
    let transport = quick(directory.path());
    declare(&transport).await;
    for start in (0..1500).step_by(50) {
        send(&transport, start..start + 50).await;
    }
    for number in 1500..2000 {
        transport.publish(&[numbered(number)]).await.pop().unwrap().unwrap();
    }
    let mut processes: Vec<_> =
        (0..8).map(|_| Process::start("processes::part_drains", directory.path())).collect();
    for process in &mut processes {
        assert_eq!(process.hear().unwrap(), "ready");
    }
    processes.iter_mut().for_each(Process::tell);
    let taken = processes.iter_mut().map(|process| std::iter::from_fn(|| process.hear()).collect::<Vec<_>>());
    let taken: Vec<Vec<String>> = taken.collect();
    let acked = taken.iter().flatten().filter(|said| !said.starts_with(ACKING));
    let numbers = distinct(acked.map(|number| number.parse().unwrap()));
    assert_eq!(numbers.len(), 2000);
    assert!(taken.iter().filter(|taken| !taken.is_empty()).count() > 1, "one process took everything");
}

#[tokio::test]
async fn killed_publishers_and_consumers_lose_nothing_and_repeat_nothing_acknowledged() {
    let directory = tempfile::tempdir().unwrap();
    let transport = quick(directory.path());
    declare(&transport).await;
    for round in 0..6 {
        let mut publisher = Process::start("processes::part_publishes_without_end", directory.path());
        let mut consumer = Process::start("processes::part_drains", directory.path());
        assert_eq!(consumer.hear().unwrap(), "ready");
        consumer.tell();
        // As many as makes the ends fall everywhere.
        let mut published: Vec<_> = (0..100 + 37 * round).map_while(|_| publisher.hear()).collect();
        published.extend(publisher.kill());
        let mut said: Vec<_> = (0..80 + 45 * round).map_while(|_| consumer.hear()).collect();
        said.extend(consumer.kill());
        let (acking, acked): (Vec<_>, Vec<_>) = said.iter().partition(|said| said.starts_with(ACKING));
        let acking = acking.into_iter().map(|said| number(said.strip_prefix(ACKING).unwrap()));
        // The rest of the round, which has the same numbers as every other.
        let rest = drain(&transport).await;
        let came = distinct(acked.into_iter().map(|said| number(said)).chain(rest));
        let in_doubt: HashSet<usize> = acking.filter(|number| !came.contains(number)).collect();
        assert!(in_doubt.len() <= 1, "round {round}: {in_doubt:?} were acknowledged and nobody knows");
        let is_lost = |number: &usize| !came.contains(number) && !in_doubt.contains(number);
        let lost: Vec<_> = published.iter().map(|said| number(said)).filter(is_lost).collect();
        assert!(lost.is_empty(), "round {round}: {lost:?} were published and never came");
    }
    let left = std::fs::read_dir(directory.path().join("tmp")).unwrap().count();
    assert_eq!(left, 0, "files were left in tmp");
}

fn number(said: &str) -> usize {
    said.parse().unwrap()
}

#[tokio::test]
async fn a_temporary_queue_goes_away_with_its_killed_process() {
    let directory = tempfile::tempdir().unwrap();
    let transport = quick(directory.path());
    let mut keeper = Process::start("processes::part_keeps_a_temporary_queue", directory.path());
    let name = keeper.hear().unwrap().parse().unwrap();
    assert!(transport.admin().queue(&name).await.is_ok());
    keeper.kill();
    assert!(transport.admin().queue(&name).await.is_err());
    assert_eq!(std::fs::read_dir(directory.path().join("queues")).unwrap().count(), 0);
}
